"""Counters of limits in Valkey: reserve on several at once or on none, settle with what was used.

One script does both, so each is one command and atomic. A counter is one hash:

- ``u``: what was used; of a bucket, as it stood at ``t`` (milliseconds): it drains from there on.
- a number N: what is reserved until N (milliseconds since the epoch). Reserved amounts do not
  drain. What is not settled until then returns by itself: the next command on that counter drops
  it. Ends of leases are rounded up, so a counter has few of them, however many have reserved.

All keys of one command must lie on one server: a Valkey cluster is not supported.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import hiredis
import msgspec

from tidegate.stores.reservations import (
    PERIOD,
    ReservationGranted,
    ReservationPart,
    ReservationPrefetch,
    ReservationRefused,
    ReservationTerms,
    Settlement,
)
from tidegate.stores.valkey_client import ValkeyClient, ValkeyDown

log = logging.getLogger("tidegate.stores.counters")

_BACKLOG_MOST = 10_000
"""Counters whose settlements are held while Valkey is away."""
_BATCH, _BATCHES = 200, 2
"""Counters settled in one command once Valkey is back, and commands in one go."""
_SETTLE_DELAY = 0.02
"""Seconds that a settlement which changes little may wait for others to leave with it."""

# Numbers go to commands as they are: Valkey writes them with 17 digits.
SCRIPT = b"""
local call, num, floor, max = redis.call, tonumber, math.floor, math.max
local now = num(ARGV[2])
if now == 0 then
  local t = call('TIME')
  now = t[1] * 1000 + floor(t[2] / 1000)
end
-- A counter is kept a day beyond its use, so once an hour is often enough to say so.
local hour = floor(now / 3600000)
if ARGV[1] == 's' then
  local slot = ARGV[3]
  for i = 1, #KEYS do
    local a = i * 4
    local key, reserved, spent, rate = KEYS[i], num(ARGV[a]), num(ARGV[a + 1]), num(ARGV[a + 2])
    local state = call('HMGET', key, 'u', 't', slot)
    -- A lease that has ended returned its amount already: giving it back again would free twice.
  local left = nil
    if reserved > 0 and state[3] then
      left = num(state[3]) - reserved
      if left <= 0 or num(slot) <= now then
        call('HDEL', key, slot)
        left = nil
      end
    end
    if spent > 0 then
      -- max(now, at): the time of a counter never moves back, though clocks do (a failover, two
      -- gateways): a bucket would drain the same seconds twice.
      local used, at = num(state[1] or 0), num(state[2] or 0)
      if rate > 0 and now > at then used = max(0, used - (now - at) * rate) end
      if left then
        call('HSET', key, 'u', used + spent, 't', max(now, at), slot, left)
      else
        call('HSET', key, 'u', used + spent, 't', max(now, at))
      end
      if floor(at / 3600000) ~= hour then call('PEXPIRE', key, ARGV[a + 3]) end
    elseif left then
      call('HSET', key, slot, left)
    end
  end
  return 1
end
local grain = num(ARGV[4])
local slot = string.format('%.0f', math.ceil((now + num(ARGV[3])) / grain) * grain)
-- Nothing is written before every counter has been read: all parts are reserved, or none.
local all, barred = num(ARGV[5]), num(ARGV[6])
local used, reserved, at, room, worst = {}, {}, {}, {}, nil
for i = 1, #KEYS do
  local a = i * 6 + 1
  local flat = call('HGETALL', KEYS[i])
  local u, t, l = 0, 0, 0
  for j = 1, #flat, 2 do
    local field = flat[j]
    if field == 'u' then u = num(flat[j + 1])
    elseif field == 't' then t = num(flat[j + 1])
    elseif num(field) > now then l = l + num(flat[j + 1])
    else call('HDEL', KEYS[i], field) end
  end
  local rate = num(ARGV[a + 4])
  if rate > 0 and now > t then u = max(0, u - (now - t) * rate) end
  used[i], reserved[i], at[i] = u, l, t
  room[i] = num(ARGV[a + 3]) - u - l
  -- Of a drained bucket the use is a fraction: without the slack its last whole unit is refused.
  if num(ARGV[a + 1]) > room[i] + 1e-6 then
    local mask = num(ARGV[a])
    barred = bit.bor(barred, mask)
    if mask == all or not worst then worst = i end
  end
end
if barred ~= 0 and bit.band(barred, all) == all then
  return {0, worst, math.ceil(used[worst]), reserved[worst]}
end
local reply = {1, slot, barred}
for i = 1, #KEYS do
  local a = i * 6 + 1
  local amount = num(ARGV[a + 1])
  if barred ~= 0 and bit.band(num(ARGV[a]), bit.bnot(barred)) == 0 then
    reply[i + 3] = -1
  else
    if ARGV[a + 2] == 'c' then
      call('HSET', KEYS[i], 'u', used[i] + amount, 't', max(now, at[i]))
    elseif amount > 0 then
      call('HINCRBY', KEYS[i], slot, ARGV[a + 1])
    end
    if floor(at[i] / 3600000) ~= hour then call('PEXPIRE', KEYS[i], ARGV[a + 5]) end
    reply[i + 3] = max(0, floor(room[i] - amount + 1e-6))
  end
end
return reply
"""
_SHA = hashlib.sha1(SCRIPT).hexdigest().encode()


class CounterState(msgspec.Struct, frozen=True):
    """What a counter holds: used, and reserved by requests that have not ended."""

    used: float
    reserved: int
    since: float
    """Seconds since it was last charged."""


class CounterReservation:
    """A reservation on several counters: under way to Valkey, granted, or refused."""

    __slots__ = ("_granted", "parts", "reply")

    def __init__(
        self,
        parts: Sequence[ReservationPart],
        reply: asyncio.Future[ReservationGranted | ReservationRefused] | None = None,
        granted: ReservationGranted | None = None,
    ) -> None:
        self.parts = parts
        self.reply = reply
        """Carries the outcome or ValkeyDown; None for what was granted out of a prefetch. Whoever
        reserves must look at ``granted`` in the end even when its own request was cancelled: what
        Valkey granted meanwhile stays reserved until it is settled, or its lease ends."""
        self._granted = granted

    @property
    def granted(self) -> ReservationGranted | None:
        """The grant, as far as one has arrived."""
        reply = self.reply
        if reply is None:
            return self._granted
        if not reply.done() or reply.cancelled() or reply.exception() is not None:
            return None
        outcome = reply.result()
        return outcome if isinstance(outcome, ReservationGranted) else None


_Settlements = dict[tuple[bytes, int], dict[bytes, Settlement]]
"""Settlements by the end of their lease (and the time, 0: by Valkey's clock), then by key."""


class _ReserveCommand(msgspec.Struct, frozen=True):
    """One command that reserves for requests on the same counters, and prefetches for ``ahead``
    more of them."""

    together: Sequence[CounterReservation]
    terms: ReservationTerms
    words: list[bytes | str | int]
    prefetch: ReservationPrefetch | None
    ahead: int


class Counters:
    """The counters of limits as one worker uses them: coalesces, prefetches, settles."""

    def __init__(self, store: ValkeyClient) -> None:
        self._store = store
        self._unsent: dict[tuple[Any, ...], list[CounterReservation]] = {}
        """Reservations of this turn of the loop, by terms and keys; sent at its end."""
        self._prefetches: dict[tuple[Any, ...], ReservationPrefetch] = {}
        """Prefetches of the last moment, by terms and keys."""
        self._unsettled: _Settlements = {}
        """Settlements to send at the end of this turn of the loop, or a little later."""
        self._send_soon_handle: asyncio.Handle | None = None
        self._send_later_timer: asyncio.TimerHandle | None = None
        self._backlog: _Settlements = {}
        """Usage not yet reported because Valkey was unreachable, least recently used first."""
        self._backlog_timer: asyncio.TimerHandle | None = None
        self._forgotten = 0
        """Counters whose usage was dropped since the backlog was full."""
        self._stopping = False

    def reserve(
        self, parts: Sequence[ReservationPart], terms: ReservationTerms
    ) -> CounterReservation:
        """Send a reservation without waiting; ``outcome`` gives what came of it.

        Requests that reserve on the same counters in the same turn of the loop share one command,
        and need none when what they ask for was prefetched."""
        loop = asyncio.get_running_loop()
        keys: list[Any] = [terms]
        whole = True
        for part in parts:
            keys.append(part.key)
            if part.covers != terms.every:
                whole = False
        group = tuple(keys)
        if whole:
            prefetch = self._prefetches.get(group)
            if prefetch is None:
                if not self._prefetches:
                    loop.call_later(PERIOD / 2, self._sweep)
                self._prefetches[group] = ReservationPrefetch(loop.time())
            elif self._store.up and prefetch.connection == self._store.connection:
                granted = prefetch.grant(parts, loop.time())
                if granted is not None:
                    self._charge(parts, granted)
                    return CounterReservation(parts, granted=granted)
        reservation = CounterReservation(parts, loop.create_future())
        if not whole:  # some models may be barred and others not: each is judged by itself
            group = (terms, reservation)
        if not self._unsent:
            loop.call_soon(self._send_reservations)
        self._unsent.setdefault(group, []).append(reservation)
        return reservation

    async def outcome(
        self, reservation: CounterReservation
    ) -> ReservationGranted | ReservationRefused:
        """Whether a reservation was granted. Raises ValkeyDown when Valkey does not say in time."""
        reply = reservation.reply
        if reply is None:
            assert reservation.granted is not None
            return reservation.granted
        # Shielded: a client that leaves here cancels its request, and what Valkey grants all the
        # same must still arrive in the reply, or nobody would give it back.
        return reply.result() if reply.done() else await asyncio.shield(reply)

    def _send_reservations(self) -> None:
        unsent, self._unsent = self._unsent, {}
        for group in unsent:
            if group in self._prefetches:
                self._release(self._prefetches[group])
        # Before the reservations: Valkey takes commands in order, and what is given back here may
        # be the very rest that a reservation needs.
        self._send_settlements()
        for group, together in unsent.items():
            self._request(together, group[0], self._prefetches.get(group))

    def _request(
        self,
        together: Sequence[CounterReservation],
        terms: ReservationTerms,
        prefetch: ReservationPrefetch | None = None,
    ) -> None:
        """Send one command for requests that reserve on the same counters at once."""
        parts = together[0].parts
        ahead = 0
        if prefetch is not None and not self._stopping:
            ahead = prefetch.next_count(parts, len(together), asyncio.get_running_loop().time())
            prefetch.requested |= ahead > 0
        words: list[bytes | str | int] = [b"EVALSHA", _SHA, len(parts)]
        words += [part.key for part in parts]
        words += (b"r", terms.now, terms.lease, terms.grain, terms.every, terms.barred)
        for place, part in enumerate(parts):
            amount = sum(one.parts[place].amount for one in together) + ahead * part.amount
            words += (
                part.covers,
                amount,
                # What is prefetched is charged when a request gets it, not now.
                b"c" if part.charge and not ahead else b"r",
                part.capacity,
                repr(part.rate),
                part.ttl,
            )
        self._send(_ReserveCommand(together, terms, words, prefetch, ahead))

    def _send(self, command: _ReserveCommand) -> None:
        self._store.call(*command.words).add_done_callback(partial(self._replied, command))

    def _replied(self, command: _ReserveCommand, sent: asyncio.Future[Any]) -> None:
        """Give each request its outcome; when there is not enough for all, ask for each by itself,
        so that one large request does not have its neighbours refused."""
        together, prefetch, ahead = command.together, command.prefetch, command.ahead
        error = ValkeyDown("the command was given up") if sent.cancelled() else sent.exception()
        if isinstance(error, hiredis.ReplyError):
            if str(error).startswith("NOSCRIPT") and command.words[0] == b"EVALSHA":
                command.words[:2] = b"EVAL", SCRIPT
                self._send(command)
                return
            error = ValkeyDown(f"Valkey refused a limit's command: {error}")
        outcome = None if error is not None else _outcome_of(sent.result())
        if prefetch is not None:
            prefetch.requested &= not ahead
            prefetch.observe(outcome.left if isinstance(outcome, ReservationGranted) else ())
        if isinstance(outcome, ReservationRefused) and (len(together) > 1 or ahead):
            self._send_settlements()
            for one in together:
                self._request([one], command.terms)
            return
        if prefetch is not None and ahead and isinstance(outcome, ReservationGranted):
            now = asyncio.get_running_loop().time()
            parts = together[0].parts
            outcome = prefetch.refill(parts, ahead, outcome, self._store.connection, now)
            for one in together:
                self._charge(one.parts, outcome)
        for one in together:
            assert one.reply is not None
            if one.reply.done():
                continue
            if outcome is not None:
                one.reply.set_result(outcome)
            else:
                assert error is not None
                one.reply.set_exception(error)

    def _charge(self, parts: Sequence[ReservationPart], granted: ReservationGranted) -> None:
        """Count as used, whatever becomes of the request, the charges that it got prefetched."""
        for part in parts:
            if part.charge:
                used = Settlement(part.key, part.amount, part.amount, part.rate, part.ttl)
                _add(self._unsettled, (used,), granted.slot)
                self._send_later()

    def _release(self, prefetch: ReservationPrefetch) -> None:
        """Give back the rest of a prefetch.

        What was reserved over an earlier connection returns by its lease instead: a Valkey that was
        started anew does not have it, and would take it from what others have reserved."""
        back, slot = prefetch.release()
        if back and prefetch.connection == self._store.connection:
            _add(self._unsettled, back, slot)
            self._send_later()

    def _sweep(self) -> None:
        """Release the prefetches that have expired, and drop those without new requests."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for group, prefetch in list(self._prefetches.items()):
            if now >= prefetch.until:
                self._release(prefetch)
            # One whose refill is under way stays: the reply finds it, and it is released next time.
            if now >= prefetch.until + PERIOD and not prefetch.requested:
                del self._prefetches[group]
        if self._prefetches:
            loop.call_later(PERIOD / 2, self._sweep)

    def settle(
        self,
        settlements: Sequence[Settlement],
        granted: ReservationGranted | None = None,
        now: int = 0,
    ) -> None:
        """Settle what was ``granted`` (None: what was let pass uncounted), without waiting.

        Requests that end in the same turn of the loop share one command; it leaves before any
        request of the next turn reserves. What came out of a prefetch may be settled 20 ms later:
        much is left then. While Valkey is away settlements are held, summed by counter, and leave
        with the first reservation or settlement after it is back."""
        _add(self._unsettled, settlements, b"0" if granted is None else granted.slot, now)
        if granted is not None and granted.prefetched:
            self._send_later()
        elif self._send_soon_handle is None:
            self._send_soon_handle = asyncio.get_running_loop().call_soon(self._send_settlements)

    def _send_later(self) -> None:
        if self._send_later_timer is None:
            loop = asyncio.get_running_loop()
            self._send_later_timer = loop.call_later(_SETTLE_DELAY, self._send_settlements)

    def _send_settlements(self) -> None:
        for timer in (self._send_soon_handle, self._send_later_timer):
            if timer is not None:
                timer.cancel()
        self._send_soon_handle = self._send_later_timer = None
        if self._backlog and self._backlog_timer is None:
            self._send_backlog()
        unsettled, self._unsettled = self._unsettled, {}
        for (slot, now), batch in unsettled.items():
            self._send_settlement(list(batch.values()), slot, now)

    def _send_settlement(
        self, settlements: Sequence[Settlement], slot: bytes, now: int, *, known: bool = True
    ) -> None:
        """Send one command of settlements. ``known``: whether Valkey should have the script."""
        words: list[bytes | str | int] = [b"EVALSHA", _SHA] if known else [b"EVAL", SCRIPT]
        words.append(len(settlements))
        words += [one.key for one in settlements]
        words += (b"s", now, slot)
        for one in settlements:
            words += (one.reserved, one.used, repr(one.rate), one.ttl)
        sent = self._store.send(*words)
        # Held only when nothing was sent. What was sent into a connection that then broke may have
        # been counted: sending it again could bill a request twice, so it is not.
        if sent is None:
            self._hold(settlements, slot, now)
        elif known:
            sent.add_done_callback(partial(self._resend_with_script, settlements, slot, now))

    def _resend_with_script(
        self, settlements: Sequence[Settlement], slot: bytes, now: int, reply: asyncio.Future[Any]
    ) -> None:
        """Send settlements again with the script, which a Valkey started anew does not have."""
        error = None if reply.cancelled() else reply.exception()
        if isinstance(error, hiredis.ReplyError) and str(error).startswith("NOSCRIPT"):
            self._send_settlement(settlements, slot, now, known=False)

    def _hold(self, settlements: Sequence[Settlement], slot: bytes, now: int) -> None:
        """Add settlements to the backlog; beyond its bound the least recently used are dropped."""
        _add(self._backlog, settlements, slot, now)
        over = sum(map(len, self._backlog.values())) - _BACKLOG_MOST
        if over > 0 and not self._forgotten:
            log.warning(
                "limits: Valkey is away, and more than %d counters wait for it: what was used of "
                "others is forgotten",
                _BACKLOG_MOST,
            )
        for _ in range(over):
            _pop_oldest(self._backlog, 1)
            self._forgotten += 1

    def _send_backlog(self) -> None:
        """Send some of the backlog, and the rest a moment later: a Valkey that just came back has
        requests to answer within their deadline."""
        self._backlog_timer = None
        for _ in range(_BATCHES):
            if self._backlog and self._store.up:
                self._send_settlement(*_pop_oldest(self._backlog, _BATCH))
        if self._backlog and self._store.up:
            loop = asyncio.get_running_loop()
            self._backlog_timer = loop.call_later(_SETTLE_DELAY, self._send_backlog)
        elif not self._backlog and self._forgotten:
            log.warning("limits: what was used of %d counters was forgotten", self._forgotten)
            self._forgotten = 0

    async def stop(self) -> None:
        """Release every prefetch and send every settlement: the end of a worker."""
        self._stopping = True
        # Three rounds: for the commands under way, for the requests that waited for them, and for
        # the reservations that a shared refusal had to repeat one by one.
        for _ in range(3):
            await self._drained()
            for prefetch in self._prefetches.values():
                self._release(prefetch)
            self._send_settlements()
        while self._backlog and self._store.up:
            if self._backlog_timer is not None:
                self._backlog_timer.cancel()
            self._send_backlog()
            await self._drained()
        await self._drained()
        self._prefetches.clear()

    async def _drained(self) -> None:
        """Return once every command sent before is answered or given up: replies keep order."""
        try:
            await self._store.call(b"PING")
        except (ValkeyDown, hiredis.ReplyError):
            pass
        await asyncio.sleep(0)


def _add(
    batches: _Settlements, settlements: Sequence[Settlement], slot: bytes, now: int = 0
) -> None:
    """Sum settlements by counter. The counter goes to the end: batches stay ordered by last use."""
    batch = batches.get((slot, now))
    if batch is None:
        batch = batches[slot, now] = {}
    for one in settlements:
        known = batch.pop(one.key, None)
        batch[one.key] = one if known is None else _summed(known, one)


def _pop_oldest(batches: _Settlements, most: int) -> tuple[list[Settlement], bytes, int]:
    """Remove up to ``most`` settlements of the first batch, least recently used first."""
    (slot, now), batch = next(iter(batches.items()))
    part = [batch.pop(key) for key in list(itertools.islice(batch, most))]
    if not batch:
        del batches[slot, now]
    return part, slot, now


def _summed(one: Settlement, other: Settlement) -> Settlement:
    """Two settlements of the same counter as one."""
    reserved, used = one.reserved + other.reserved, one.used + other.used
    return Settlement(one.key, reserved, used, other.rate, other.ttl)


def _outcome_of(reply: Sequence[Any]) -> ReservationGranted | ReservationRefused:
    if reply[0] == 1:
        return ReservationGranted(reply[1], reply[2], reply[3:])
    return ReservationRefused(reply[1] - 1, reply[2], reply[3])


async def read_counters(store: ValkeyClient, stem: str) -> dict[str, CounterState]:
    """The state of every counter whose name begins with ``stem``, by name.

    For people, not for the path of requests: it scans. A bucket is given as it stood when it was
    last used, not drained since."""
    found: dict[str, CounterState] = {}
    cursor = b"0"
    pattern = stem.replace("\\", "\\\\").replace("[", "\\[").replace("*", "\\*").replace("?", "\\?")
    while True:
        cursor, names = await store.call(b"SCAN", cursor, b"MATCH", pattern + "*", b"COUNT", 500)
        clock = await store.call(b"TIME")
        now = int(clock[0]) * 1000 + int(clock[1]) // 1000
        for name in names:
            flat = await store.call(b"HGETALL", name)
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            used, at = float(fields.pop(b"u", 0)), int(fields.pop(b"t", now))
            reserved = sum(int(amount) for end, amount in fields.items() if int(end) > now)
            found[name.decode()] = CounterState(used, reserved, (now - at) / 1000)
        if cursor == b"0":
            return found
