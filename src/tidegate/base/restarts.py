"""When a child that ended is started again: a pure rule over the runs it has had.

Exponential backoff with jitter, so that children that died of one cause do not come back as one
(Brooker, "Exponential Backoff and Jitter", 2015: "equal jitter"). It is never given up for good:
a child that keeps dying is reported as failing and tried twice a minute.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

FIRST_DELAY = 0.2
LONGEST_DELAY = 10.0
FAILING_AFTER = 8
"""Short runs in a row after which a child counts as failing."""
FAILING_DELAY = 30.0
STABLE_AFTER = 30.0
"""Seconds after which a run counts as stable: the short runs before it are forgotten."""


class ChildRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a child: seconds from start to end, and its exit code (-9: by signal 9)."""

    seconds: float
    exit: int


class Restart(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds to wait before the next start, whether the child counts as failing, and why."""

    delay: float
    failing: bool
    sentence: str


def next_restart(runs: Sequence[ChildRun], jitter: float) -> Restart:
    """The next start of a child that had ``runs`` (oldest first, at least one).

    ``jitter`` is a random number in [0, 1): the delay is between half and all of its nominal value.
    """
    last = runs[-1]
    streak = 1
    for run in reversed(runs[:-1]):
        if last.seconds >= STABLE_AFTER or run.seconds >= STABLE_AFTER:
            break
        streak += 1
    failing = streak >= FAILING_AFTER
    nominal = FAILING_DELAY if failing else min(LONGEST_DELAY, FIRST_DELAY * 2 ** (streak - 1))
    delay = nominal * (0.5 + jitter / 2)
    how = f"was killed by signal {-last.exit}" if last.exit < 0 else f"ended with {last.exit}"
    after = f"{how} after {last.seconds:.1f} s"
    if failing:
        sentence = f"{after}, the {streak}th short run in a row: failing, next try in {delay:.0f} s"
    else:
        sentence = f"{after}: started again in {delay:.1f} s"
    return Restart(delay=delay, failing=failing, sentence=sentence)
