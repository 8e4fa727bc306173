"""What the loader says about itself, in ``.tidegate/run/ledger.json``, for the operator's door."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from tidegate.base import write_private

_FRESH = 10.0
"""Seconds; a loader that runs, on a disk with room, reports once a second."""


class LedgerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds since the epoch."""

    pid: int
    at: float
    """When this was written."""
    level_at: float
    """When everything spooled was last in PostgreSQL."""
    behind_bytes: int
    degraded: str | None = None
    """Why PostgreSQL does not take receipts; None when it does."""
    loaded: int = 0
    """Receipts since this process began."""
    rejected: int = 0


def status_path(state: Path) -> Path:
    return state / "run" / "ledger.json"


def write_status(state: Path, status: LedgerStatus) -> None:
    write_private(status_path(state), msgspec.json.encode(status))


def read_status(state: Path) -> LedgerStatus | None:
    """None when no loader ever ran here, or another version of it."""
    try:
        return msgspec.json.decode(status_path(state).read_bytes(), type=LedgerStatus)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def is_fresh(status: LedgerStatus) -> bool:
    """Whether the loader could say this lately. A dead loader, and one whose disk is full, cannot:
    what they last said is no longer a reason to call the ledger well."""
    return time.time() - status.at < _FRESH
