"""Time comes in through one door, so that a test can hold it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """``now`` is wall time in seconds since the epoch; ``tick`` is monotonic nanoseconds."""

    def now(self) -> float: ...

    def tick(self) -> int: ...


class SystemClock:
    """The machine's own clock."""

    now = staticmethod(time.time)
    tick = staticmethod(time.perf_counter_ns)
