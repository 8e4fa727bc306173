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
import collections
import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import hiredis
import msgspec

from tidegate.stores.valkey_client import ValkeyClient, ValkeyDown

_UNSENT_MOST = 10_000

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


class Granted(msgspec.Struct, frozen=True):
    """``slot`` names the end of the lease. ``barred``: bits of the models without budget. ``left``:
    what is left on each counter, -1 where nothing was borrowed as its models are barred."""

    slot: bytes
    barred: int
    left: Sequence[int]


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


class State(msgspec.Struct, frozen=True):
    """How a counter stands."""

    used: float
    borrowed: int
    since: float
    """Seconds since it was last charged."""


class Terms(msgspec.Struct, frozen=True):
    """What a wish is asked under: milliseconds of the lease and to which its end is rounded up,
    bits of all models that may be asked and of those that may not, and the time (0: Valkey's)."""

    lease: int
    grain: int
    every: int
    barred: int
    now: int


class Borrowing(msgspec.Struct, eq=False):
    """Wishes on their way."""

    wishes: Sequence[Borrow]
    reply: asyncio.Future[Granted | Refused]
    """Carries the verdict or ValkeyDown. Who sends the wishes looks at it in the end (``granted``),
    come what may."""

    @property
    def granted(self) -> Granted | None:
        """What was lent, as far as is known by now."""
        if not self.reply.done() or self.reply.cancelled() or self.reply.exception() is not None:
            return None
        verdict = self.reply.result()
        return verdict if isinstance(verdict, Granted) else None


class Counters:
    """The counters of one worker's limits over the shared store."""

    def __init__(self, store: ValkeyClient) -> None:
        self._store = store
        self._unsent: collections.deque[Sequence[bytes | str | int]] = collections.deque(
            maxlen=_UNSENT_MOST
        )
        self._unborrowed: dict[tuple[Any, ...], list[Borrowing]] = {}
        """By terms and keys: sent at the end of this turn of the loop."""
        self._unsettled: dict[tuple[bytes, int], dict[bytes, Settlement]] = {}
        """By the end of their lease and by key: told at the end of this turn of the loop."""

    def borrow(
        self,
        wishes: Sequence[Borrow],
        lease: int,
        grain: int,
        every: int,
        barred: int = 0,
        now: int = 0,
    ) -> Borrowing:
        """Send the wishes; ``read`` tells what came of them. Requests that wish from the same
        counters in the same turn of the loop share one command. ``lease``: milliseconds; ``every``:
        the bits of all models that may be asked. When each of them is barred, all is refused and
        nothing is borrowed anywhere."""
        loop = asyncio.get_running_loop()
        borrowing = Borrowing(wishes, loop.create_future())
        if not self._unborrowed:
            loop.call_soon(self._send_wishes)
        terms = Terms(lease, grain, every, barred, now)
        # Where some models may be barred and others not, each request is judged by itself.
        whole = all(wish.covers == every for wish in wishes)
        group = (terms, *(wish.key for wish in wishes)) if whole else (terms, id(borrowing))
        self._unborrowed.setdefault(group, []).append(borrowing)
        return borrowing

    async def read(self, borrowing: Borrowing) -> Granted | Refused:
        """The verdict on the wishes. Raises ValkeyDown when the store gives none in time."""
        reply = borrowing.reply
        return reply.result() if reply.done() else await asyncio.shield(reply)

    def _send_wishes(self) -> None:
        while self._unsent and self._store.up:
            self._store.tell(*self._unsent.popleft())
        unborrowed, self._unborrowed = self._unborrowed, {}
        for group, together in unborrowed.items():
            self._lend(together, group[0])

    def _lend(self, together: Sequence[Borrowing], terms: Terms) -> None:
        """Borrow for requests that wish from the same counters at once."""
        wishes = together[0].wishes
        command: list[bytes | str | int] = [b"EVALSHA", _SHA, len(wishes)]
        command += [wish.key for wish in wishes]
        command += (b"r", terms.now, terms.lease, terms.grain, terms.every, terms.barred)
        for place, wish in enumerate(wishes):
            command += (
                wish.covers,
                sum(one.wishes[place].amount for one in together),
                b"c" if wish.charge else b"r",
                wish.capacity,
                repr(wish.rate),
                wish.ttl,
            )
        self._store.call(*command).add_done_callback(partial(self._lent, together, terms, command))

    def _lent(
        self,
        together: Sequence[Borrowing],
        terms: Terms,
        command: list[bytes | str | int],
        sent: asyncio.Future[Any],
    ) -> None:
        """Tell each request its verdict; when there is not enough for all, each is asked for by
        itself."""
        error = ValkeyDown("the command was given up") if sent.cancelled() else sent.exception()
        if isinstance(error, hiredis.ReplyError):
            if str(error).startswith("NOSCRIPT") and command[0] == b"EVALSHA":
                command[:2] = b"EVAL", SCRIPT
                again = self._store.call(*command)
                again.add_done_callback(partial(self._lent, together, terms, command))
                return
            error = ValkeyDown(f"Valkey refused a limit's command: {error}")
        verdict = None if error is not None else _verdict(sent.result())
        if isinstance(verdict, Refused) and len(together) > 1:
            for one in together:
                self._lend([one], terms)
            return
        for one in together:
            if one.reply.done():
                continue
            if verdict is not None:
                one.reply.set_result(verdict)
            else:
                assert error is not None
                one.reply.set_exception(error)

    def settle(self, settlements: Sequence[Settlement], slot: bytes = b"0", now: int = 0) -> None:
        """Tell the truth and wait for nothing. Requests that end in the same turn of the loop share
        one command; it leaves before any request of the next turn borrows. While the store is away
        what is settled is kept, as much as fits, and sent when the store is back."""
        if not self._unsettled:
            asyncio.get_running_loop().call_soon(self._send_settlements)
        lot = self._unsettled.setdefault((slot, now), {})
        for one in settlements:
            known = lot.get(one.key)
            lot[one.key] = one if known is None else _both(known, one)

    def _send_settlements(self) -> None:
        unsettled, self._unsettled = self._unsettled, {}
        for (slot, now), lot in unsettled.items():
            command: list[bytes | str | int] = [b"EVALSHA", _SHA, len(lot), *lot, b"s", now, slot]
            for one in lot.values():
                command += (one.borrowed, one.truth, repr(one.rate), one.ttl)
            sent = self._store.tell(*command)
            if sent is None:
                self._unsent.append((b"EVAL", SCRIPT, *command[2:]))
            else:
                sent.add_done_callback(partial(self._unless_known, command))

    def _unless_known(
        self, command: Sequence[bytes | str | int], reply: asyncio.Future[Any]
    ) -> None:
        """A store that was started anew does not know the script: it is sent along once."""
        error = None if reply.cancelled() else reply.exception()
        if isinstance(error, hiredis.ReplyError) and str(error).startswith("NOSCRIPT"):
            self._store.tell(b"EVAL", SCRIPT, *command[2:])


def _both(one: Settlement, other: Settlement) -> Settlement:
    """Two of the same counter, as one."""
    return Settlement(
        one.key, one.borrowed + other.borrowed, one.truth + other.truth, other.rate, other.ttl
    )


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
