"""Look up, wait for an identical call in flight, keep: at most one Valkey round trip before a call.

One command does it all: ``SET key lease NX GET PX`` returns the stored answer (a hit), or
another worker's lease (wait for it), or nothing: then this request holds the lease and makes
the call. Within one worker, identical calls wait for each other without asking Valkey.

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
from tidegate.gateway.values import Answer, Call
from tidegate.gateway.wire.openai import ChatHead
from tidegate.stores.valkey_client import ValkeyClient, ValkeyDown

_LEASE = b"L"
_ENTRY = b"E"
_LARGEST = 1 << 20
_POLL = (0.01, 0.02, 0.04, 0.08)
_RELEASE = (
    b"if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"
)
_decoder = msgspec.msgpack.Decoder(Answer)
_encoder = msgspec.msgpack.Encoder()


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


class ExactCache:
    """The exact cache of one worker over the shared store."""

    def __init__(self, store: ValkeyClient, prefix: bytes = b"tg:x:") -> None:
        self._store = store
        self._prefix = prefix
        self._near = NearCache()
        self._flights: dict[bytes, Flight] = {}
        self._hits = self._misses = self._shared = 0

    def statistics(self) -> CacheStatistics:
        return CacheStatistics(self._hits, self._misses, self._shared, len(self._flights))

    async def look(self, call: Call, control: str | None) -> tuple[Answer | None, Flight | None]:
        """(answer, None) on a hit; (None, flight) when the caller must call, then keep or leave;
        (None, None) when this request is not cached at all."""
        ttl = call.plan.route.cache_ttl
        if ttl is None:
            return None, None
        head = call.head
        if why_not(head.temperature if isinstance(head, ChatHead) else None, control):
            call.cache = "bypass"
            return None, None
        form = "whole" if not call.stream else "stream+usage" if call.wants_usage else "stream"
        key = self._prefix + cache_key(call.tenant, call.plan.fingerprint, call.upstream, form)
        loop = asyncio.get_running_loop()
        near = self._near.get(key, loop.time())
        if near is not None:
            call.cache = "hit"
            self._hits += 1
            return near, None
        under_way = self._flights.get(key)
        if under_way is not None:
            return await self._wait_here(call, under_way), None
        flight = Flight(key, loop.create_future())
        self._flights[key] = flight
        try:
            answer = await self._ask(call, flight)
        except BaseException:
            self.leave(flight)
            raise
        if answer is None:
            return None, flight
        self._near.put(key, answer, loop.time(), ttl)
        self._land(flight, answer)
        return answer, None

    def keep(self, flight: Flight, answer: Answer, ttl: float) -> None:
        """The call is over: keep its answer when it may be kept, and tell those who wait."""
        if not may_keep(answer):
            self.leave(flight)
            return
        if flight.lease is not None and flight.held:
            now = time.time()
            kept = msgspec.structs.replace(answer, stored_at=now, content=None)
            value = _ENTRY + _encoder.encode(kept)
            if len(value) <= _LARGEST:
                self._store.tell(b"SET", flight.key, value, b"PX", max(1, int(ttl * 1000)))
                flight.lease = None
        self._land(flight, answer)

    def leave(self, flight: Flight) -> None:
        """The call gave nothing to keep: those who wait make their own. Safe to call twice."""
        self._land(flight, None)

    async def _ask(self, call: Call, flight: Flight) -> Answer | None:
        lease = _LEASE + call.id.encode()
        patience = call.plan.route.timeouts.total
        # From here on Valkey may hold the lease, whether its answer comes in time or not.
        flight.lease = lease
        try:
            found = await self._store.call(
                b"SET", flight.key, lease, b"NX", b"GET", b"PX", int(patience * 1000) + 1000
            )
            if found is None:
                flight.held = True
            else:
                flight.lease = None
                if found.startswith(_LEASE):
                    found = await self._wait_elsewhere(flight.key, call.deadline)
        except (ValkeyDown, hiredis.ReplyError):
            call.cache = "down"
            return None
        if found is None or found.startswith(_LEASE):
            call.cache = "miss"
            self._misses += 1
            return None
        try:
            answer = _decoder.decode(memoryview(found)[1:])
        except msgspec.DecodeError:  # kept by another version of this program: replace it
            flight.lease, flight.held = lease, True
            call.cache = "miss"
            self._misses += 1
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
            call.cache = "miss"
            self._misses += 1
            return None
        call.cache = "shared"
        self._shared += 1
        return answer

    async def _wait_elsewhere(self, key: bytes, deadline: float) -> bytes | None:
        """Poll for the answer of another worker's call until it is there or given up, for half of
        the time that is left at most: that worker may have died, and this one must still call."""
        loop = asyncio.get_running_loop()
        tries = 0
        patience = (loop.time() + deadline) / 2
        while loop.time() < patience:
            await asyncio.sleep(_POLL[min(tries, len(_POLL) - 1)])
            tries += 1
            found: bytes | None = await self._store.call(b"GET", key)
            if found is None or not found.startswith(_LEASE):
                return found
        return None

    def _land(self, flight: Flight, answer: Answer | None) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
        if not flight.done.done():
            flight.done.set_result(answer)
        if flight.lease is not None:
            self._store.tell(b"EVAL", _RELEASE, 1, flight.key, flight.lease)
            flight.lease = None


def may_keep(answer: Answer) -> bool:
    """Answers that ended by themselves and asked for no tool. Errors never get this far."""
    return answer.complete and not answer.tool_calls
