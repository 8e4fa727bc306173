"""What the flips come to; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

BAR = 1000.0
"""Milliseconds from a change to its last acknowledgement, at p99."""


class Flip(msgspec.Struct, frozen=True, kw_only=True):
    """One change. Milliseconds; those of workers are by the clock of PostgreSQL."""

    what: str
    workers: tuple[float, ...]
    """From the change to the acknowledgement of each worker."""
    seen: float
    """From before the change to where the command knew of all of them."""
    unreached: int
    """Workers that did not acknowledge in time."""
    wrong: int
    """Requests after the last acknowledgement that were answered as if it were not in force."""

    @property
    def last(self) -> float:
        return max(self.workers, default=math.inf) if not self.unreached else math.inf


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    flips: int
    p50: float
    p99: float
    max: float
    seen_p99: float
    unreached: int
    wrong: int

    @property
    def passed(self) -> bool:
        return bool(self.flips) and self.p99 < BAR and not self.unreached and not self.wrong


def figures(flips: Sequence[Flip]) -> Figures:
    """Of the last acknowledgement of each flip."""
    last = [flip.last for flip in flips]
    return Figures(
        flips=len(flips),
        p50=percentile(last, 50),
        p99=percentile(last, 99),
        max=percentile(last, 100),
        seen_p99=percentile([flip.seen for flip in flips], 99),
        unreached=sum(flip.unreached for flip in flips),
        wrong=sum(flip.wrong for flip in flips),
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` percent of all do not exceed; infinite without any."""
    if not values:
        return math.inf
    return sorted(values)[max(0, math.ceil(len(values) * share / 100) - 1)]
