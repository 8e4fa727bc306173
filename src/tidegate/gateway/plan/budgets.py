"""What one route of one worker may spend on asking twice: retries after a failure, hedges beside a
slow model. Clocks come from the caller."""

from __future__ import annotations

import msgspec

from tidegate.release import Hedge

MOST_SAVED = 10.0
"""Hedges that a quiet time may save up for a bad one."""


class HedgeStatistics(msgspec.Struct, frozen=True):
    left: float
    hedged: int
    refused: int
    """Slow requests that were not hedged because the budget was used up."""


class HedgeBudget:
    """What one route may spend on hedges: each request earns a share of one, a hedge costs one.
    Over N requests at most 1 + ``spend`` * N are hedged."""

    def __init__(self, hedge: Hedge) -> None:
        self.after = hedge.after
        self._spend = hedge.spend
        self._left = 1.0 if hedge.spend else 0.0
        self._hedged = self._refused = 0

    def earn(self) -> None:
        self._left = min(MOST_SAVED, self._left + self._spend)

    def take(self) -> bool:
        """Whether one more request may be asked twice; if so it is paid for."""
        if self._left < 1.0:
            self._refused += 1
            return False
        self._left -= 1.0
        self._hedged += 1
        return True

    def statistics(self) -> HedgeStatistics:
        return HedgeStatistics(self._left, self._hedged, self._refused)


BURST = 10.0
"""Retries that a quiet time may save up, and that a worker starts with."""
FLOOR = 0.5
"""Retries a second that a route with little traffic may make."""


class RetryBudget:
    """What one route of one worker may spend on retries: each request earns a share of one, and
    time earns ``FLOOR`` a second. Over any stretch with N requests in T seconds at most
    ``BURST + share * N + FLOOR * T`` retries are made; with a share of 0 none."""

    def __init__(self, share: float, now: float) -> None:
        self._share = share
        self._left = BURST if share else 0.0
        self._at = now

    def earn(self, now: float) -> None:
        if self._share:
            grown = self._left + self._share + FLOOR * max(0.0, now - self._at)
            self._left = min(BURST, grown)
            self._at = max(self._at, now)

    @property
    def affordable(self) -> bool:
        return self._left >= 1.0

    def take(self) -> None:
        """Pay for one retry. Only after ``affordable``."""
        self._left -= 1.0
