"""Reservations on the counters of limits, their settlement, and prefetching; pure.

A request reserves the most that it may use on every counter of its limits, and settles with what
it did use when it ends. A worker that asked Valkey for each request would pay for a command each.
So where much is left on the counters and requests come fast, it reserves for some that will come
in the next moment too, and grants those out of that prefetch. What no request took goes back a
moment later. A prefetch is reserved like everything else, so no counter is ever exceeded; it is a
small part of what is left, so hardly any other request is refused for it; and near the end of a
limit, each request is asked for by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import add

import msgspec

PERIOD = 0.1
"""Seconds for which a prefetch may be granted to requests."""
SHARE = 64
"""A prefetch is at most this part of what is left on each counter,"""
MOST = 64
"""and for so many requests at most."""


class ReservationPart(msgspec.Struct, frozen=True):
    """The amount that a reservation asks of one counter."""

    key: bytes
    covers: int
    """Bits of the models that may not be asked when this counter has not enough."""
    amount: int
    charge: bool
    """Used as soon as it is granted, and never settled; else reserved until it is settled."""
    capacity: int
    rate: float
    """Units that a bucket drains in a millisecond; 0: a budget."""
    ttl: int
    """Milliseconds that the counter is kept."""


class ReservationTerms(msgspec.Struct, frozen=True):
    """The lease, the models and the release that a reservation is asked under.

    When every model is barred, all is refused and nothing is reserved on any counter."""

    lease: int
    """Milliseconds after which an unsettled reservation returns by itself."""
    grain: int
    """Milliseconds to which the end of the lease is rounded up."""
    every: int
    """Bits of all models that may be asked."""
    barred: int = 0
    """Bits of those that may not be asked in any case."""
    now: int = 0
    """Milliseconds since the epoch; 0: by Valkey's clock."""
    limits: str = ""
    """What the limits are. Two releases with different amounts count on the same counters; what was
    prefetched under one must not be granted under the other."""


class ReservationGranted(msgspec.Struct, frozen=True):
    """Valkey's yes to a reservation, and how its counters stand."""

    slot: bytes
    """The end of the lease: the field of the counters that holds the reserved amounts."""
    barred: int
    """Bits of the models without budget."""
    left: Sequence[int]
    """What is left on each counter; -1 where nothing was reserved as its models are barred."""
    prefetched: bool = False
    """Granted by the worker out of a prefetch."""


class ReservationRefused(msgspec.Struct, frozen=True):
    """Valkey's no to a reservation: which part (its index) was too much for its counter."""

    which: int
    used: int
    reserved: int


class Settlement(msgspec.Struct, frozen=True):
    """The end of a reservation on one counter: ``reserved`` goes back, ``used`` is counted."""

    key: bytes
    reserved: int
    used: int
    rate: float
    ttl: int


class ReservationPrefetch:
    """What one worker has reserved ahead of requests on one set of counters."""

    __slots__ = (
        "_granted",
        "_left",
        "_parts",
        "_rest",
        "_served",
        "connection",
        "requested",
        "until",
    )

    def __init__(self, now: float) -> None:
        self._parts: Sequence[ReservationPart] = ()
        self._granted = ReservationGranted(b"0", 0, ())
        self._rest: list[int] = []
        """What is not granted to a request yet, by part."""
        self._left: Sequence[int] = ()
        """What was left on each counter beyond that; empty while that is unknown."""
        self._served = 0
        """Requests since the last refill."""
        self.requested = False
        """Whether the next refill is under way: a second one would reserve twice."""
        self.connection = 0
        """The connection to Valkey of the last refill. A Valkey that was started anew does not know
        what was reserved over an earlier one."""
        self.until = now + PERIOD
        """Seconds of the loop's clock."""

    def grant(self, parts: Sequence[ReservationPart], now: float) -> ReservationGranted | None:
        """Grant ``parts`` out of the prefetch; None when it has not enough, or has expired."""
        rest = self._rest
        if not rest or now >= self.until:
            return None
        over = [held - part.amount for held, part in zip(rest, parts, strict=True)]
        if min(over) < 0:
            return None
        self._rest = over
        self._served += 1
        left = list(map(add, self._granted.left, over))
        return ReservationGranted(self._granted.slot, self._granted.barred, left, True)

    def next_count(self, parts: Sequence[ReservationPart], asked: int, now: float) -> int:
        """For how many requests like that of ``parts`` to prefetch, beside the ``asked`` ones: for
        twice as many as came since the last refill, within the share of what is left."""
        self._served += asked
        if self.requested or not self._left or now >= self.until + PERIOD:
            return 0
        count = min(2 * self._served, MOST)
        for part, left in zip(parts, self._left, strict=True):
            if part.amount > 0:
                count = min(count, left // (part.amount * SHARE))
        return max(0, count)

    def observe(self, left: Sequence[int]) -> None:
        """Take note of how the counters stand. Empty after a refusal or a missing reply: then
        nothing is prefetched until a grant says what is left."""
        self._left = left

    def refill(
        self,
        parts: Sequence[ReservationPart],
        count: int,
        granted: ReservationGranted,
        connection: int,
        now: float,
    ) -> ReservationGranted:
        """Hold what ``granted`` has beyond the requests that asked: ``count`` times ``parts``.

        Returns the grant as those requests see it, with the prefetch counted as left. The rest of
        the last refill must have been released before: it is overwritten here."""
        self._parts, self._granted, self._left = parts, granted, granted.left
        self._rest = [part.amount * count for part in parts]
        self._served, self.connection, self.until = 0, connection, now + PERIOD
        left = list(map(add, granted.left, self._rest))
        return ReservationGranted(granted.slot, granted.barred, left, True)

    def release(self) -> tuple[list[Settlement], bytes]:
        """Empty the prefetch: the settlements that give it back, and the slot they belong to."""
        back = [
            Settlement(part.key, rest, 0, part.rate, part.ttl)
            for part, rest in zip(self._parts, self._rest, strict=True)
            if rest > 0
        ]
        self._parts, self._rest = (), []
        return back, self._granted.slot
