"""Gauges of gateway workers: what is under way now, written once a second to
``.tidegate/run/gateway-N.json`` for the operator's door and the soak."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from tidegate.base import write_private

_FRESH = 10.0
"""Seconds; a worker whose loop turns, on a disk with room, reports once a second."""


class WorkerGauges(msgspec.Struct, frozen=True, kw_only=True):
    """One worker at one moment. ``at``: seconds since the epoch."""

    pid: int
    at: float
    release: str
    """Digest of the stable release."""
    gauges: dict[str, float]
    """What is under way or held at this moment, by name. All but ``tasks``, ``connections`` and
    ``upstream_idle`` are 0 when no request runs."""


def gauges_path(alive: Path) -> Path:
    """Where the worker with the pulse file ``alive`` writes its gauges."""
    return alive.with_suffix(".json")


def write_gauges(path: Path, value: WorkerGauges) -> None:
    """Raises OSError on a full disk."""
    write_private(path, msgspec.json.encode(value))


def read_gauges(run: Path) -> dict[int, WorkerGauges]:
    """The fresh reports of all workers in ``.tidegate/run``, by worker number."""
    found = {}
    now = time.time()
    for path in run.glob("gateway-*.json"):
        number = path.stem.removeprefix("gateway-")
        if not number.isdecimal():
            continue
        try:
            one = msgspec.json.decode(path.read_bytes(), type=WorkerGauges)
        except (FileNotFoundError, msgspec.DecodeError):
            continue  # a worker that ends, or another version of this program
        if now - one.at < _FRESH:
            found[int(number)] = one
    return dict(sorted(found.items()))
