"""What is borrowed from counters and given back, and borrowing ahead of requests; pure.

A worker that asks the store for each request pays for a command each. Where much is left on the
counters and requests come fast, it borrows for some that will come in the next moment too, and
hands that out: an advance. What nobody took of it goes back a moment later. Since all of it is
borrowed, no counter is ever passed; since it is a small part of what is left, hardly anybody is
refused for what a worker holds; near the end of a limit each request is asked for by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import add

import msgspec

PERIOD = 0.1
"""Seconds in which an advance may be handed out."""
SHARE = 64
"""An advance is at most this part of what is left on each counter,"""
MOST = 64
"""and for so many requests at most."""


class Borrow(msgspec.Struct, frozen=True):
    """A wish on one counter. ``covers``: bits of the models that may not be asked when this counter
    has not enough. ``charge``: used at once, and not settled; else borrowed until it is settled."""

    key: bytes
    covers: int
    amount: int
    charge: bool
    capacity: int
    rate: float
    """Units that a bucket drains in a millisecond; 0: a budget."""
    ttl: int
    """Milliseconds that the counter is kept."""


class Terms(msgspec.Struct, frozen=True):
    """What a wish is asked under: milliseconds of the lease and to which its end is rounded up,
    bits of all models that may be asked and of those that may not, and the time (0: Valkey's).
    When each model is barred, all is refused and nothing is borrowed anywhere. ``limits``: what the
    limits are. Releases with different ones count on the same counters, and nothing that is
    borrowed under one may be handed out under another."""

    lease: int
    grain: int
    every: int
    barred: int = 0
    now: int = 0
    limits: str = ""


class Granted(msgspec.Struct, frozen=True):
    """``slot`` names the end of the lease. ``barred``: bits of the models without budget. ``left``:
    what is left on each counter, -1 where nothing was borrowed as its models are barred.
    ``ahead``: handed out of an advance."""

    slot: bytes
    barred: int
    left: Sequence[int]
    ahead: bool = False


class Refused(msgspec.Struct, frozen=True):
    """Which wish (its index) was too much, and how that counter stands."""

    which: int
    used: int
    borrowed: int


class Settlement(msgspec.Struct, frozen=True):
    """The truth about one counter: ``borrowed`` goes back, ``truth`` is used."""

    key: bytes
    borrowed: int
    truth: int
    rate: float
    ttl: int


class Advance:
    """What one worker has borrowed ahead on counters that are wished from together."""

    __slots__ = (
        "_granted",
        "_left",
        "_rest",
        "_served",
        "_wishes",
        "asking",
        "connection",
        "until",
    )

    def __init__(self, now: float) -> None:
        self._wishes: Sequence[Borrow] = ()
        self._granted = Granted(b"0", 0, ())
        self._rest: list[int] = []
        """What is not handed out yet, by wish."""
        self._left: Sequence[int] = ()
        """What was left on each counter beyond that; empty while nobody knows."""
        self._served = 0
        """Requests since it was filled."""
        self.asking = False
        """Whether the next filling is on its way."""
        self.connection = 0
        """To the store, over which it was filled: what was borrowed over another may be gone."""
        self.until = now + PERIOD
        """Seconds of the loop's clock."""

    def take(self, wishes: Sequence[Borrow], now: float) -> Granted | None:
        """Hand out what ``wishes`` ask for; None when there is not enough, or it is too late."""
        rest = self._rest
        if not rest or now >= self.until:
            return None
        over = [held - wish.amount for held, wish in zip(rest, wishes, strict=True)]
        if min(over) < 0:
            return None
        self._rest = over
        self._served += 1
        left = list(map(add, self._granted.left, over))
        return Granted(self._granted.slot, self._granted.barred, left, True)

    def wanted(self, wishes: Sequence[Borrow], asked: int, now: float) -> int:
        """For how many requests like the one of ``wishes`` to borrow ahead, now that ``asked`` are
        asked for: for twice as many as came lately, within what is left."""
        self._served += asked
        if self.asking or not self._left or now >= self.until + PERIOD:
            return 0
        count = min(2 * self._served, MOST)
        for wish, left in zip(wishes, self._left, strict=True):
            if wish.amount > 0:
                count = min(count, left // (wish.amount * SHARE))
        return max(0, count)

    def learn(self, left: Sequence[int]) -> None:
        """How the counters stand by the newest answer; empty when there was none, or a refusal:
        then nothing is borrowed ahead until there is."""
        self._left = left

    def fill(
        self, wishes: Sequence[Borrow], count: int, granted: Granted, connection: int, now: float
    ) -> Granted:
        """``granted`` is for ``count`` requests beyond those that asked; what those are told. What
        was in it before must have been given back."""
        self._wishes, self._granted, self._left = wishes, granted, granted.left
        self._rest = [wish.amount * count for wish in wishes]
        self._served, self.connection, self.until = 0, connection, now + PERIOD
        left = list(map(add, granted.left, self._rest))
        return Granted(granted.slot, granted.barred, left, True)

    def give_back(self) -> tuple[list[Settlement], bytes]:
        """What was not handed out, and the end of its lease; it is not handed out any more."""
        back = [
            Settlement(wish.key, rest, 0, wish.rate, wish.ttl)
            for wish, rest in zip(self._wishes, self._rest, strict=True)
            if rest > 0
        ]
        self._wishes, self._rest = (), []
        return back, self._granted.slot
