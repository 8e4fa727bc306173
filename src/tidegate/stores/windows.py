"""Calendar windows in UTC, and the names of limits' counters in Valkey; pure.

A counter is named by its limit, its unit, its window and whom it counts for, never by the size of
the limit: an edited limit goes on from what was used.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

Unit = Literal["requests", "tokens", "dollars"]
Calendar = Literal["hour", "day", "week", "month"]

PREFIX = "tg:l:"
NANO = 1_000_000_000
"""Dollars are counted in whole billionths: exact up to nine million dollars."""

KEEP = 86_400_000
"""Milliseconds that a counter is kept beyond its use: a full store evicts cached answers first."""


class Window(msgspec.Struct, frozen=True):
    """``[start, end)`` in seconds since the epoch, and its name in keys."""

    name: str
    start: float
    end: float


BUCKET = Window("b", 0.0, float("inf"))
"""The window of a bucket, which refills all the time and never ends."""


def window_at(every: Calendar | None, at: float) -> Window:
    """The calendar window that ``at`` lies in; weeks begin on Monday. None: the bucket's."""
    if every is None:
        return BUCKET
    now = datetime.fromtimestamp(at, UTC)
    start = now.replace(minute=0, second=0, microsecond=0)
    if every == "hour":
        end, name = start + timedelta(hours=1), f"h{start:%Y-%m-%dT%H}"
    else:
        start = start.replace(hour=0)
        if every == "day":
            end, name = start + timedelta(days=1), f"d{start:%Y-%m-%d}"
        elif every == "week":
            start -= timedelta(days=start.weekday())
            end, name = start + timedelta(days=7), f"w{start:%Y-%m-%d}"
        else:
            start = start.replace(day=1)
            end = (start + timedelta(days=31)).replace(day=1)
            name = f"m{start:%Y-%m}"
    return Window(name, start.timestamp(), end.timestamp())


def limit_stem(limit: str, unit: Unit) -> str:
    """The prefix of the names of all counters of a limit."""
    return f"{PREFIX}{limit}:{unit[0]}:"


def counter_stem(limit: str, unit: Unit, window: str) -> str:
    """The prefix of the names of a limit's counters in one window; the scope follows it."""
    return f"{limit_stem(limit, unit)}{window}:"


def grain_of(lease: float) -> int:
    """Milliseconds to which the ends of leases are rounded up, so that a counter holds about 32
    different ends at most: a power of two seconds."""
    seconds = 1
    while seconds * 32 < lease:
        seconds *= 2
    return seconds * 1000
