"""One of many makes a value and the others wait for it: a key holds a lease, then the value.

One command does it all: ``SET key lease NX GET PX`` returns the value, or another's lease (wait
for it), or nothing: then the lease is ours and so is the work. Asked again and again, the same
command chooses exactly one successor when a lease is given up or runs out.

A key may be in the hands of several programs, so what is given up or replaced is compared first.
"""

from __future__ import annotations

import asyncio

from tidegate.stores.valkey_client import ValkeyClient

LEASE = b"L"
ENTRY = b"E"
_POLL = (0.01, 0.02, 0.04, 0.08)
_RELEASE = (
    b"if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"
)
_EXTEND = (
    b"if redis.call('get', KEYS[1]) == ARGV[1] then"
    b" return redis.call('pexpire', KEYS[1], ARGV[2]) end return 0"
)
_SETTLE = (
    b"if redis.call('get', KEYS[1]) == ARGV[1] then"
    b" return redis.call('set', KEYS[1], ARGV[2], 'PX', ARGV[3]) end return 0"
)


class Leases:
    """Leases in the shared store. A lease begins with ``LEASE``, a value with ``ENTRY``."""

    def __init__(self, store: ValkeyClient) -> None:
        self._store = store

    async def take(self, key: bytes, lease: bytes, seconds: float) -> bytes | None:
        """None: ``key`` is leased to us for ``seconds``. Else the value, or another's lease.

        Raises ValkeyDown; the lease may then be ours all the same: ``release`` it.
        """
        found: bytes | None = await self._store.call(
            b"SET", key, lease, b"NX", b"GET", b"PX", _ms(seconds)
        )
        return found

    async def follow(self, key: bytes, lease: bytes, seconds: float, until: float) -> bytes | None:
        """Wait for the holder's value, or to succeed it; as ``take``, and at ``until`` (loop time)
        the lease of who still holds it."""
        loop = asyncio.get_running_loop()
        tries = 0
        found: bytes | None = LEASE
        while found is not None and found.startswith(LEASE) and (now := loop.time()) < until:
            await asyncio.sleep(min(_POLL[min(tries, len(_POLL) - 1)], until - now))
            tries += 1
            found = await self.take(key, lease, seconds)
        return found

    def put(self, key: bytes, value: bytes, seconds: float) -> None:
        """Keep ``value`` for ``seconds``, whatever stands there."""
        self._store.tell(b"SET", key, value, b"PX", _ms(seconds))

    def settle(self, key: bytes, lease: bytes, value: bytes, seconds: float) -> None:
        """Keep ``value`` in the place of our lease; nothing where the lease is ours no more."""
        self._store.tell(b"EVAL", _SETTLE, 1, key, lease, value, _ms(seconds))

    def extend(self, key: bytes, lease: bytes, seconds: float) -> None:
        """Hold our lease for ``seconds`` from now."""
        self._store.tell(b"EVAL", _EXTEND, 1, key, lease, _ms(seconds))

    def release(self, key: bytes, lease: bytes) -> None:
        """Give our lease up: one of those who wait takes it."""
        self._store.tell(b"EVAL", _RELEASE, 1, key, lease)


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))
