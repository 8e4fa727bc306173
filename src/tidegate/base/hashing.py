"""sha256 digests, over bytes that are the same on every machine."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

_CHUNK = 1 << 20
_encoder = msgspec.json.Encoder(order="sorted")


def sha256(data: bytes | str) -> str:
    """The lower-case hex sha256 of ``data`` (text as UTF-8)."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def sha256_file(path: Path) -> tuple[str, int]:
    """The hex sha256 of a file and its size in bytes, read in chunks of 1 MiB."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes."""
    return _encoder.encode(value)
