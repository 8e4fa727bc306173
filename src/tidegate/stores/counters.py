"""Counters of limits in Valkey: borrow from several at once or from none, settle with the truth.

One script does both, so each is one command and atomic. A counter is one hash:

- ``u``: what was used; of a bucket, as it stood at ``t`` (milliseconds): it drains from there on.
- a number N: what is borrowed until N (milliseconds since the epoch). Borrowed amounts do not
  drain. What nobody settled until then returns by itself: the next command on that counter drops
  it. Ends are rounded up, so that a counter has few of them, however many have borrowed.

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

from tidegate.stores.lending import (
    PERIOD,
    Advance,
    Borrow,
    Granted,
    Refused,
    Settlement,
    Terms,
)
from tidegate.stores.valkey_client import ValkeyClient, ValkeyDown

log = logging.getLogger("tidegate.stores.counters")

_KEPT_MOST = 10_000
"""Counters of which the truth is kept while the store is away."""
_PART, _PARTS = 200, 2
"""Counters that are told in one command once it is back, and commands in one go."""
_PATIENCE = 0.02
"""Seconds that a settlement which changes little may wait for company."""

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
    local key, lent, truth, rate = KEYS[i], num(ARGV[a]), num(ARGV[a + 1]), num(ARGV[a + 2])
    local state = call('HMGET', key, 'u', 't', slot)
    local left = nil
    if lent > 0 and state[3] then
      left = num(state[3]) - lent
      if left <= 0 or num(slot) <= now then
        call('HDEL', key, slot)
        left = nil
      end
    end
    if truth > 0 then
      local used, at = num(state[1] or 0), num(state[2] or 0)
      if rate > 0 and now > at then used = max(0, used - (now - at) * rate) end
      if left then
        call('HSET', key, 'u', used + truth, 't', max(now, at), slot, left)
      else
        call('HSET', key, 'u', used + truth, 't', max(now, at))
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
local all, barred = num(ARGV[5]), num(ARGV[6])
local used, lent, at, room, worst = {}, {}, {}, {}, nil
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
  used[i], lent[i], at[i] = u, l, t
  room[i] = num(ARGV[a + 3]) - u - l
  if num(ARGV[a + 1]) > room[i] + 1e-6 then
    local mask = num(ARGV[a])
    barred = bit.bor(barred, mask)
    if mask == all or not worst then worst = i end
  end
end
if barred ~= 0 and bit.band(barred, all) == all then
  return {0, worst, math.ceil(used[worst]), lent[worst]}
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


class State(msgspec.Struct, frozen=True):
    """How a counter stands."""

    used: float
    borrowed: int
    since: float
    """Seconds since it was last charged."""


class Borrowing:
    """Wishes on their way, or granted already."""

    __slots__ = ("_granted", "reply", "wishes")

    def __init__(
        self,
        wishes: Sequence[Borrow],
        reply: asyncio.Future[Granted | Refused] | None = None,
        granted: Granted | None = None,
    ) -> None:
        self.wishes = wishes
        self.reply = reply
        """Carries the verdict or ValkeyDown; None for what was handed out of an advance. Who sends
        the wishes looks at it in the end (``granted``), come what may."""
        self._granted = granted

    @property
    def granted(self) -> Granted | None:
        """What was lent, as far as is known by now."""
        reply = self.reply
        if reply is None:
            return self._granted
        if not reply.done() or reply.cancelled() or reply.exception() is not None:
            return None
        verdict = reply.result()
        return verdict if isinstance(verdict, Granted) else None


_Lots = dict[tuple[bytes, int], dict[bytes, Settlement]]
"""Settlements by the end of their lease (and the time, 0: Valkey's), and by key."""


class _Errand(msgspec.Struct, frozen=True):
    """A command that borrows for requests which wish from the same counters, and for ``ahead``
    more of them."""

    together: Sequence[Borrowing]
    terms: Terms
    command: list[bytes | str | int]
    advance: Advance | None
    ahead: int


class Counters:
    """The counters of one worker's limits over the shared store."""

    def __init__(self, store: ValkeyClient) -> None:
        self._store = store
        self._unborrowed: dict[tuple[Any, ...], list[Borrowing]] = {}
        """By terms and keys: sent at the end of this turn of the loop."""
        self._advances: dict[tuple[Any, ...], Advance] = {}
        """By terms and keys, those of the last moment."""
        self._unsettled: _Lots = {}
        """Told at the end of this turn of the loop, or a little later."""
        self._telling: asyncio.Handle | None = None
        self._telling_later: asyncio.TimerHandle | None = None
        self._kept: _Lots = {}
        """What could not be told as the store was away; last used last."""
        self._telling_kept: asyncio.TimerHandle | None = None
        self._forgotten = 0
        self._stopping = False

    def borrow(self, wishes: Sequence[Borrow], terms: Terms) -> Borrowing:
        """Send the wishes; ``read`` tells what came of them. Requests that wish from the same
        counters in the same turn of the loop share one command, and need none when what they wish
        was borrowed ahead."""
        loop = asyncio.get_running_loop()
        keys: list[Any] = [terms]
        whole = True
        for wish in wishes:
            keys.append(wish.key)
            if wish.covers != terms.every:
                whole = False
        group = tuple(keys)
        if whole:
            advance = self._advances.get(group)
            if advance is None:
                if not self._advances:
                    loop.call_later(PERIOD / 2, self._sweep)
                self._advances[group] = Advance(loop.time())
            elif self._store.up and advance.connection == self._store.connection:
                granted = advance.take(wishes, loop.time())
                if granted is not None:
                    self._charge(wishes, granted)
                    return Borrowing(wishes, granted=granted)
        borrowing = Borrowing(wishes, loop.create_future())
        if not whole:  # some models may be barred and others not: each is judged by itself
            group = (terms, borrowing)
        if not self._unborrowed:
            loop.call_soon(self._send_wishes)
        self._unborrowed.setdefault(group, []).append(borrowing)
        return borrowing

    async def read(self, borrowing: Borrowing) -> Granted | Refused:
        """The verdict on the wishes. Raises ValkeyDown when the store gives none in time."""
        reply = borrowing.reply
        if reply is None:
            assert borrowing.granted is not None
            return borrowing.granted
        return reply.result() if reply.done() else await asyncio.shield(reply)

    def _send_wishes(self) -> None:
        unborrowed, self._unborrowed = self._unborrowed, {}
        for group in unborrowed:
            if group in self._advances:
                self._return(self._advances[group])
        self._send_settlements()  # what goes back may be what is wished
        for group, together in unborrowed.items():
            self._lend(together, group[0], self._advances.get(group))

    def _lend(
        self, together: Sequence[Borrowing], terms: Terms, advance: Advance | None = None
    ) -> None:
        """Borrow for requests that wish from the same counters at once."""
        wishes = together[0].wishes
        ahead = 0
        if advance is not None and not self._stopping:
            ahead = advance.wanted(wishes, len(together), asyncio.get_running_loop().time())
            advance.asking |= ahead > 0
        command: list[bytes | str | int] = [b"EVALSHA", _SHA, len(wishes)]
        command += [wish.key for wish in wishes]
        command += (b"r", terms.now, terms.lease, terms.grain, terms.every, terms.barred)
        for place, wish in enumerate(wishes):
            amount = sum(one.wishes[place].amount for one in together) + ahead * wish.amount
            command += (
                wish.covers,
                amount,
                # What is borrowed ahead is charged when it is handed out.
                b"c" if wish.charge and not ahead else b"r",
                wish.capacity,
                repr(wish.rate),
                wish.ttl,
            )
        self._send(_Errand(together, terms, command, advance, ahead))

    def _send(self, errand: _Errand) -> None:
        self._store.call(*errand.command).add_done_callback(partial(self._lent, errand))

    def _lent(self, errand: _Errand, sent: asyncio.Future[Any]) -> None:
        """Tell each request its verdict; when there is not enough for all, each is asked for by
        itself."""
        together, advance, ahead = errand.together, errand.advance, errand.ahead
        error = ValkeyDown("the command was given up") if sent.cancelled() else sent.exception()
        if isinstance(error, hiredis.ReplyError):
            if str(error).startswith("NOSCRIPT") and errand.command[0] == b"EVALSHA":
                errand.command[:2] = b"EVAL", SCRIPT
                self._send(errand)
                return
            error = ValkeyDown(f"Valkey refused a limit's command: {error}")
        verdict = None if error is not None else _verdict(sent.result())
        if advance is not None:
            advance.asking &= not ahead
            advance.learn(verdict.left if isinstance(verdict, Granted) else ())
        if isinstance(verdict, Refused) and (len(together) > 1 or ahead):
            self._send_settlements()
            for one in together:
                self._lend([one], errand.terms)
            return
        if advance is not None and ahead and isinstance(verdict, Granted):
            now = asyncio.get_running_loop().time()
            wishes = together[0].wishes
            verdict = advance.fill(wishes, ahead, verdict, self._store.connection, now)
            for one in together:
                self._charge(one.wishes, verdict)
        for one in together:
            assert one.reply is not None
            if one.reply.done():
                continue
            if verdict is not None:
                one.reply.set_result(verdict)
            else:
                assert error is not None
                one.reply.set_exception(error)

    def _charge(self, wishes: Sequence[Borrow], granted: Granted) -> None:
        """Tell what was borrowed ahead and is used now, whatever becomes of the request."""
        for wish in wishes:
            if wish.charge:
                used = Settlement(wish.key, wish.amount, wish.amount, wish.rate, wish.ttl)
                _add(self._unsettled, (used,), granted.slot)
                self._tell_later()

    def _return(self, advance: Advance) -> None:
        """Give back what is left of it; what was borrowed over an earlier connection returns by its
        lease, for a store that was started anew would take it from others."""
        back, slot = advance.give_back()
        if back and advance.connection == self._store.connection:
            _add(self._unsettled, back, slot)
            self._tell_later()

    def _sweep(self) -> None:
        """Return what nobody took in time, and forget whom nobody asks for any more."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for group, advance in list(self._advances.items()):
            if now >= advance.until:
                self._return(advance)
            if now >= advance.until + PERIOD and not advance.asking:
                del self._advances[group]
        if self._advances:
            loop.call_later(PERIOD / 2, self._sweep)

    def settle(
        self, settlements: Sequence[Settlement], granted: Granted | None = None, now: int = 0
    ) -> None:
        """Tell the truth about what was ``granted`` (None: what was let pass uncounted), and wait
        for nothing. Requests that end in the same turn of the loop share one command; it leaves
        before any request of the next turn borrows. What was handed out of an advance may be told
        20 ms later: much is left then. While the store is away what is settled is kept, added up by
        counter, and told when somebody borrows or settles after it is back."""
        _add(self._unsettled, settlements, b"0" if granted is None else granted.slot, now)
        if granted is not None and granted.ahead:
            self._tell_later()
        elif self._telling is None:
            self._telling = asyncio.get_running_loop().call_soon(self._send_settlements)

    def _tell_later(self) -> None:
        if self._telling_later is None:
            loop = asyncio.get_running_loop()
            self._telling_later = loop.call_later(_PATIENCE, self._send_settlements)

    def _send_settlements(self) -> None:
        for timer in (self._telling, self._telling_later):
            if timer is not None:
                timer.cancel()
        self._telling = self._telling_later = None
        if self._kept and self._telling_kept is None:
            self._tell_kept()
        unsettled, self._unsettled = self._unsettled, {}
        for (slot, now), lot in unsettled.items():
            self._tell(list(lot.values()), slot, now)

    def _tell(
        self, settlements: Sequence[Settlement], slot: bytes, now: int, *, known: bool = True
    ) -> None:
        """``known``: whether the store has the script, as far as one knows."""
        command: list[bytes | str | int] = [b"EVALSHA", _SHA] if known else [b"EVAL", SCRIPT]
        command.append(len(settlements))
        command += [one.key for one in settlements]
        command += (b"s", now, slot)
        for one in settlements:
            command += (one.borrowed, one.truth, repr(one.rate), one.ttl)
        sent = self._store.tell(*command)
        if sent is None:
            self._keep(settlements, slot, now)
        elif known:
            sent.add_done_callback(partial(self._unless_known, settlements, slot, now))

    def _unless_known(
        self, settlements: Sequence[Settlement], slot: bytes, now: int, reply: asyncio.Future[Any]
    ) -> None:
        """A store that was started anew does not know the script: it is sent along once."""
        error = None if reply.cancelled() else reply.exception()
        if isinstance(error, hiredis.ReplyError) and str(error).startswith("NOSCRIPT"):
            self._tell(settlements, slot, now, known=False)

    def _keep(self, settlements: Sequence[Settlement], slot: bytes, now: int) -> None:
        """Keep what cannot be told, within bounds: what was not used for longest is forgotten."""
        _add(self._kept, settlements, slot, now)
        over = sum(map(len, self._kept.values())) - _KEPT_MOST
        if over > 0 and not self._forgotten:
            log.warning(
                "limits: Valkey is away, and more than %d counters wait for it: what was used of "
                "others is forgotten",
                _KEPT_MOST,
            )
        for _ in range(over):
            _take(self._kept, 1)
            self._forgotten += 1

    def _tell_kept(self) -> None:
        """Some of what was kept, and the rest a moment later: a store that just came back has
        others to answer within its deadline."""
        self._telling_kept = None
        for _ in range(_PARTS):
            if self._kept and self._store.up:
                self._tell(*_take(self._kept, _PART))
        if self._kept and self._store.up:
            loop = asyncio.get_running_loop()
            self._telling_kept = loop.call_later(_PATIENCE, self._tell_kept)
        elif not self._kept and self._forgotten:
            log.warning("limits: what was used of %d counters was forgotten", self._forgotten)
            self._forgotten = 0

    async def stop(self) -> None:
        """Return what was borrowed ahead and tell what is not told yet: the end of a worker."""
        self._stopping = True
        for _ in range(3):  # for what is on its way, who waited for it, and what that had to repeat
            await self._answered()
            for advance in self._advances.values():
                self._return(advance)
            self._send_settlements()
        while self._kept and self._store.up:
            if self._telling_kept is not None:
                self._telling_kept.cancel()
            self._tell_kept()
            await self._answered()
        await self._answered()
        self._advances.clear()

    async def _answered(self) -> None:
        """Return once every command before this moment is answered, or given up."""
        try:
            await self._store.call(b"PING")
        except (ValkeyDown, hiredis.ReplyError):
            pass
        await asyncio.sleep(0)


def _add(lots: _Lots, settlements: Sequence[Settlement], slot: bytes, now: int = 0) -> None:
    """Add up by counter; the last used is the last."""
    lot = lots.get((slot, now))
    if lot is None:
        lot = lots[slot, now] = {}
    for one in settlements:
        known = lot.pop(one.key, None)
        lot[one.key] = one if known is None else _both(known, one)


def _take(lots: _Lots, most: int) -> tuple[list[Settlement], bytes, int]:
    """Take out ``most`` of the first lot, those first that were not used for longest."""
    (slot, now), lot = next(iter(lots.items()))
    part = [lot.pop(key) for key in list(itertools.islice(lot, most))]
    if not lot:
        del lots[slot, now]
    return part, slot, now


def _both(one: Settlement, other: Settlement) -> Settlement:
    """Two of the same counter, as one."""
    lent, truth = one.borrowed + other.borrowed, one.truth + other.truth
    return Settlement(one.key, lent, truth, other.rate, other.ttl)


def _verdict(reply: Sequence[Any]) -> Granted | Refused:
    if reply[0] == 1:
        return Granted(reply[1], reply[2], reply[3:])
    return Refused(reply[1] - 1, reply[2], reply[3])


async def read_counters(store: ValkeyClient, stem: str) -> dict[str, State]:
    """Every counter whose name begins with ``stem`` as it stands, by name; for people, not for the
    path of requests. A bucket is told as it stood when it was last used."""
    found: dict[str, State] = {}
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
            borrowed = sum(int(amount) for end, amount in fields.items() if int(end) > now)
            found[name.decode()] = State(used, borrowed, (now - at) / 1000)
        if cursor == b"0":
            return found
