"""The loader's database, and the retention that the stable release sets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tidegate.base import ReleaseError, Runtime, RuntimeStateError, read_runtime
from tidegate.release import LedgerSettings, Manifest, decode_release
from tidegate.stores import read_store_settings


def database_url(state: Path, environment: Mapping[str, str] = os.environ) -> str:
    """The external database when one is set, else the one of the running app.

    RuntimeStateError ``not_running`` while nothing runs in the folder.
    """
    return read_store_settings(environment).database_url or _runtime(state).database_url


def ledger_settings(state: Path) -> LedgerSettings | None:
    """The ``ledger`` section of the stable release; None while it cannot be read, and then
    nothing may be dropped."""
    try:
        runtime = _runtime(state)
        manifest = msgspec.json.decode(_blob(runtime.registry, runtime.release), type=Manifest)
        return decode_release(_blob(runtime.registry, manifest.config.digest)).ledger
    except (OSError, msgspec.DecodeError, ReleaseError, RuntimeStateError, ValueError):
        return None


def _runtime(state: Path) -> Runtime:
    return read_runtime(state.resolve().parent)


def _blob(registry: Path, digest: str) -> bytes:
    algorithm, _, hex_digits = digest.partition(":")
    if algorithm != "sha256" or not hex_digits.isalnum():
        raise ValueError(f"{digest!r} is not a digest")
    return (registry / "blobs" / algorithm / hex_digits).read_bytes()
