"""A release as bytes that are the same on every machine, and back.

Names are sorted, so the order of keys in ``tidegate.yaml`` does not matter. The two places that
hold a JSON Schema keep the order of their author: models write an object's properties in the
order of the schema, so that order is part of what is pinned.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tidegate.base.errors import ReleaseError
from tidegate.release.values import Release

SCHEMA_VERSION = 1
_AUTHORED_ORDER = {("tools", "*", "parameters"), ("routes", "*", "output", "json_schema")}


def encode_release(release: Release) -> bytes:
    """Canonical JSON of ``release``: UTF-8, no spaces, sorted, numbers in their declared type."""
    typed = msgspec.convert(msgspec.to_builtins(release), Release)
    return msgspec.json.encode(_sorted(msgspec.to_builtins(typed), ()))


def decode_release(data: bytes) -> Release:
    """The release in ``data``; ReleaseError when another version of tidegate wrote it."""
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version == SCHEMA_VERSION:
            return msgspec.json.decode(data, type=Release)
        problem = f"it has format {version}, this tidegate reads format {SCHEMA_VERSION}"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = str(error)
    raise ReleaseError(
        "release_unreadable",
        f"the release cannot be read: {problem}",
        cure="build it again with this version of tidegate: tidegate build",
    )


class _Version(msgspec.Struct):
    schema_version: int = 1


def _sorted(value: Any, at: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        if _keeps_order(at):
            return value
        return {key: _sorted(value[key], (*at, key)) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_sorted(item, (*at, "[]")) for item in value]
    return value


def _keeps_order(at: tuple[str, ...]) -> bool:
    return any(
        len(at) == len(pattern)
        and all(want in ("*", have) for want, have in zip(pattern, at, strict=True))
        for pattern in _AUTHORED_ORDER
    )
