"""Look up, wait for an identical call in flight, keep: at most one Valkey round trip before a call.

Of all identical calls one leads: it holds the key's lease (``stores.leases``) and makes the call;
the others wait for its answer, those of its own worker without asking Valkey. When a leader brings
nothing, one of those who wait leads next.

Only whole, checked, unsurprising answers are kept (``may_keep``). Valkey away or slow means
``down``: the call is made as if there were no cache.
"""

from __future__ import annotations

import asyncio
import time

import hiredis
import msgspec

from tidegate.gateway.cache.key import cache_key, why_not
from tidegate.gateway.cache.near import NearCache
from tidegate.gateway.cache.rules import after_leader, may_keep
from tidegate.gateway.ports import Ask
from tidegate.gateway.values import Answer, CacheResult, Request
from tidegate.stores import ENTRY, LEASE, Leases, ValkeyClient, ValkeyDown

_LARGEST = 1 << 20
_decoder = msgspec.msgpack.Decoder(Answer)
_encoder = msgspec.msgpack.Encoder()
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises of an entry that another version of this program kept."""


class CacheStatistics(msgspec.Struct, frozen=True):
    hits: int
    misses: int
    shared: int
    flights: int


class Flight(msgspec.Struct, eq=False):
    """One identical call under way in this worker. ``lease`` is set while Valkey may know of it,
    ``held`` once Valkey has said so."""

    key: bytes
    done: asyncio.Future[Answer | None]
    lease: bytes | None = None
    held: bool = False
    answered: bool = False
    """Whether the leading request got an answer, even one that may not be cached."""


class Lookup(msgspec.Struct, frozen=True, eq=False):
    """The result of a look-up; ``result`` is what the receipt says of it."""

    result: CacheResult
    key: bytes | None = None
    """Under which an answer may be kept; None when it may not."""
    answer: Answer | None = None
    flight: Flight | None = None
    """This request leads: it must call, then ``keep`` or ``leave``."""
    reason: str | None = None


NOT_CACHED = Lookup("off")


class ExactCache:
    """The exact cache of one worker over the shared store."""

    def __init__(
        self, store: ValkeyClient, prefix: bytes = b"tg:x:", stale_prefix: bytes = b"tg:s:"
    ) -> None:
        self._store = store
        self._leases = Leases(store)
        self._prefix, self._stale_prefix = prefix, stale_prefix
        self._near = NearCache()
        self._flights: dict[bytes, Flight] = {}
        self._hits = self._misses = self._shared = 0

    def statistics(self) -> CacheStatistics:
        return CacheStatistics(self._hits, self._misses, self._shared, len(self._flights))

    def at_hand(self, request: Request, ask: Ask, control: str | None) -> Lookup:
        """The look-up without Valkey: whether this request may be cached, its key, and an answer
        that this worker gave a moment ago."""
        route = request.plan.route
        if route.cache_ttl is None and route.stale is None:
            return NOT_CACHED
        bypass = why_not(ask.temperature, control)
        if bypass is not None:
            return Lookup("off" if route.cache_ttl is None else "bypass", reason=bypass.reason)
        form = "whole" if not ask.stream else "stream+usage" if ask.shows_usage else "stream"
        key = cache_key(
            request.caller.tenant,
            request.plan.fingerprint,
            ask.fields,
            f"{ask.dialect.name} {form}",
            ask.dialect.inert,
        )
        if route.cache_ttl is None:
            return Lookup("off", key)
        near = self._near.get(key, asyncio.get_running_loop().time())
        if near is None:
            return Lookup("off", key)
        self._hits += 1
        return Lookup("hit", key, near)

    async def look(self, request: Request, at_hand: Lookup) -> Lookup:
        """The look-up in Valkey: an answer, or a flight when the caller must call, then keep or
        leave; neither when this request is not cached at all."""
        ttl = request.plan.route.cache_ttl
        if at_hand.key is None or ttl is None:
            return at_hand
        key = self._prefix + at_hand.key
        loop = asyncio.get_running_loop()
        while (under_way := self._flights.get(key)) is not None:
            answer = await self._wait_here(request, under_way)
            if answer is not None:
                return Lookup("shared", at_hand.key, answer)
            left = request.deadline - loop.time()
            then = after_leader(under_way.answered, left, request.plan.route.timeouts.total)
            if not then.again:
                self._misses += 1
                return Lookup("miss", at_hand.key, reason=then.reason)
        flight = Flight(key, loop.create_future())
        self._flights[key] = flight
        try:
            result, answer = await self._ask(request, flight)
        except BaseException:
            self.leave(flight)
            raise
        if answer is None:
            return Lookup(result, at_hand.key, None, flight)
        self._near.put(at_hand.key, answer, loop.time(), ttl)
        self._land(flight, answer)
        return Lookup(result, at_hand.key, answer)

    def keep(self, flight: Flight, answer: Answer, ttl: float) -> None:
        """End the flight with an answer: cache it when it may be, and pass it to the requests that
        wait."""
        if not may_keep(answer):
            flight.answered = True
            self.leave(flight)
            return
        if flight.lease is not None and flight.held:
            now = time.time()
            kept = msgspec.structs.replace(answer, stored_at=now, content=None)
            value = ENTRY + _encoder.encode(kept)
            if len(value) <= _LARGEST:
                self._leases.put(flight.key, value, ttl)
                flight.lease = None
        self._land(flight, answer)

    def remember(self, request: Request, key: bytes | None, answer: Answer) -> None:
        """Keep an answer for the time when no model answers, where the route says how long."""
        stale = request.plan.route.stale
        if stale is None or key is None or not may_keep(answer):
            return
        kept = msgspec.structs.replace(answer, stored_at=time.time(), content=None)
        value = _encoder.encode(kept)
        if len(value) <= _LARGEST:
            self._leases.put(self._stale_prefix + key, value, stale)

    async def recall(self, request: Request, key: bytes | None) -> Answer | None:
        """The stale answer kept for this request; None when there is none, or Valkey is
        unreachable."""
        if request.plan.route.stale is None or key is None:
            return None
        try:
            found = await self._store.call(b"GET", self._stale_prefix + key)
            return None if found is None else _decoder.decode(found)
        except (ValkeyDown, hiredis.ReplyError, *_UNREADABLE):
            return None

    def leave(self, flight: Flight) -> None:
        """End the flight without an answer: one of the waiting requests becomes the leader. Safe to
        call twice."""
        self._land(flight, None)

    async def _ask(self, request: Request, flight: Flight) -> tuple[CacheResult, Answer | None]:
        lease = LEASE + request.id.encode()
        patience = request.plan.route.timeouts.total + 1.0
        # From here on Valkey may hold the lease, whether its answer comes in time or not.
        flight.lease = lease
        try:
            found = await self._leases.acquire(flight.key, lease, patience)
            if found is not None and found.startswith(LEASE):
                # For half of the time that is left at most: that worker may have died, and this
                # one must still call.
                until = (asyncio.get_running_loop().time() + request.deadline) / 2
                found = await self._leases.wait(flight.key, lease, patience, until)
        except (ValkeyDown, hiredis.ReplyError):
            return "down", None
        if found is None:
            flight.held = True
            self._misses += 1
            return "miss", None
        flight.lease = None
        if found.startswith(LEASE):
            self._misses += 1
            return "miss", None
        try:
            answer = _decoder.decode(memoryview(found)[1:])
        except _UNREADABLE:
            flight.lease, flight.held = lease, True
            self._misses += 1
            return "miss", None
        self._hits += 1
        return "hit", answer

    async def _wait_here(self, request: Request, flight: Flight) -> Answer | None:
        remaining = request.deadline - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(max(remaining, 0)):
                answer = await asyncio.shield(flight.done)
        except TimeoutError:
            answer = None
        if answer is not None:
            self._shared += 1
        return answer

    def _land(self, flight: Flight, answer: Answer | None) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
        if not flight.done.done():
            flight.done.set_result(answer)
        if flight.lease is not None:
            self._leases.release(flight.key, flight.lease)
            flight.lease = None
