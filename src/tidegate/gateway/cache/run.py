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
from tidegate.gateway.values import Answer, Call
from tidegate.gateway.wire.openai import ChatHead
from tidegate.stores.leases import ENTRY, LEASE, Leases
from tidegate.stores.valkey_client import ValkeyClient, ValkeyDown

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
    """The call brought an answer, though one that may not be kept."""


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

    def at_hand(self, call: Call, control: str | None) -> Answer | None:
        """The answer, when this worker served it a moment ago; else ``look`` may find it."""
        route = call.plan.route
        if route.cache_ttl is None and route.stale is None:
            return None
        head = call.head
        if why_not(head.temperature if isinstance(head, ChatHead) else None, control):
            call.cache = "off" if route.cache_ttl is None else "bypass"
            return None
        form = "whole" if not call.stream else "stream+usage" if call.wants_usage else "stream"
        call.cache_key = cache_key(call.tenant, call.plan.fingerprint, call.upstream, form)
        if route.cache_ttl is None:
            return None
        near = self._near.get(call.cache_key, asyncio.get_running_loop().time())
        if near is None:
            return None
        call.cache = "hit"
        self._hits += 1
        return near

    async def look(self, call: Call) -> tuple[Answer | None, Flight | None]:
        """For what is not at hand: (answer, None) on a hit; (None, flight) when the caller must
        call, then keep or leave; (None, None) when this request is not cached at all."""
        ttl = call.plan.route.cache_ttl
        if call.cache_key is None or ttl is None:
            return None, None
        key = self._prefix + call.cache_key
        loop = asyncio.get_running_loop()
        while (under_way := self._flights.get(key)) is not None:
            answer = await self._wait_here(call, under_way)
            if answer is not None:
                return answer, None
            left = call.deadline - loop.time()
            if not after_leader(under_way.answered, left, call.plan.route.timeouts.total).again:
                self._missed(call)
                return None, None
        flight = Flight(key, loop.create_future())
        self._flights[key] = flight
        try:
            answer = await self._ask(call, flight)
        except BaseException:
            self.leave(flight)
            raise
        if answer is None:
            return None, flight
        self._near.put(call.cache_key, answer, loop.time(), ttl)
        self._land(flight, answer)
        return answer, None

    def keep(self, flight: Flight, answer: Answer, ttl: float) -> None:
        """The call is over: keep its answer when it may be kept, and tell those who wait."""
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

    def remember(self, call: Call, answer: Answer) -> None:
        """Keep an answer for the time when no model answers, where the route says how long."""
        stale = call.plan.route.stale
        if stale is None or call.cache_key is None or not may_keep(answer):
            return
        kept = msgspec.structs.replace(answer, stored_at=time.time(), content=None)
        value = _encoder.encode(kept)
        if len(value) <= _LARGEST:
            self._leases.put(self._stale_prefix + call.cache_key, value, stale)

    async def recall(self, call: Call) -> Answer | None:
        """The remembered answer to this call; None when there is none, or no store."""
        if call.plan.route.stale is None or call.cache_key is None:
            return None
        try:
            found = await self._store.call(b"GET", self._stale_prefix + call.cache_key)
            return None if found is None else _decoder.decode(found)
        except (ValkeyDown, hiredis.ReplyError, *_UNREADABLE):
            return None

    def leave(self, flight: Flight) -> None:
        """The call gave nothing to keep: one of those who wait leads next. Safe to call
        twice."""
        self._land(flight, None)

    async def _ask(self, call: Call, flight: Flight) -> Answer | None:
        lease = LEASE + call.id.encode()
        patience = call.plan.route.timeouts.total + 1.0
        # From here on Valkey may hold the lease, whether its answer comes in time or not.
        flight.lease = lease
        try:
            found = await self._leases.acquire(flight.key, lease, patience)
            if found is not None and found.startswith(LEASE):
                # For half of the time that is left at most: that worker may have died, and this
                # one must still call.
                until = (asyncio.get_running_loop().time() + call.deadline) / 2
                found = await self._leases.wait(flight.key, lease, patience, until)
        except (ValkeyDown, hiredis.ReplyError):
            call.cache = "down"
            return None
        if found is None:
            flight.held = True
            self._missed(call)
            return None
        flight.lease = None
        if found.startswith(LEASE):
            self._missed(call)
            return None
        try:
            answer = _decoder.decode(memoryview(found)[1:])
        except _UNREADABLE:
            flight.lease, flight.held = lease, True
            self._missed(call)
            return None
        call.cache = "hit"
        self._hits += 1
        return answer

    async def _wait_here(self, call: Call, flight: Flight) -> Answer | None:
        remaining = call.deadline - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(max(remaining, 0)):
                answer = await asyncio.shield(flight.done)
        except TimeoutError:
            answer = None
        if answer is None:
            return None
        call.cache = "shared"
        self._shared += 1
        return answer

    def _missed(self, call: Call) -> None:
        call.cache = "miss"
        self._misses += 1

    def _land(self, flight: Flight, answer: Answer | None) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
        if not flight.done.done():
            flight.done.set_result(answer)
        if flight.lease is not None:
            self._leases.release(flight.key, flight.lease)
            flight.lease = None
