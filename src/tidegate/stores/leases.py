"""Leases in Valkey: of many that need a value, one makes it and the others wait for it.

A key holds a lease first, then the value. One command does it all: ``SET key lease NX GET PX``
returns the value, or another's lease (wait for it), or nothing: then the lease is ours and so is
the work. Asked again and again, it chooses exactly one successor when a lease is released or runs
out.

A lease may have run out and gone to another program by the time that its holder is done. So what
completes, extends or releases a lease compares it first, in one script: atomic, or a slow holder
would overwrite its successor's lease.
"""

from __future__ import annotations

import asyncio

from tidegate.stores.valkey_client import ValkeyClient

LEASE = b"L"
"""First byte of a lease."""
ENTRY = b"E"
"""First byte of a value."""
_POLL = (0.01, 0.02, 0.04, 0.08)
"""Seconds between polls; the last one repeats."""
_RELEASE = (
    b"if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"
)
_EXTEND = (
    b"if redis.call('get', KEYS[1]) == ARGV[1] then"
    b" return redis.call('pexpire', KEYS[1], ARGV[2]) end return 0"
)
_COMPLETE = (
    b"if redis.call('get', KEYS[1]) == ARGV[1] then"
    b" return redis.call('set', KEYS[1], ARGV[2], 'PX', ARGV[3]) end return 0"
)


class Leases:
    """Leases and values in the shared store: ``LEASE`` or ``ENTRY`` is their first byte."""

    def __init__(self, store: ValkeyClient) -> None:
        self._store = store

    async def acquire(self, key: bytes, lease: bytes, seconds: float) -> bytes | None:
        """None: ``key`` is leased to us for ``seconds``. Else the value, or another's lease.

        Raises ValkeyDown. The command may have reached Valkey all the same, and the lease be ours:
        ``release`` it, or others wait until it runs out.
        """
        found: bytes | None = await self._store.call(
            b"SET", key, lease, b"NX", b"GET", b"PX", _ms(seconds)
        )
        return found

    async def wait(self, key: bytes, lease: bytes, seconds: float, until: float) -> bytes | None:
        """Poll until the holder has put its value, or gave up and ``key`` is leased to us.

        Returns as ``acquire`` does; at ``until`` (the loop's clock) another's lease, if it still
        stands."""
        loop = asyncio.get_running_loop()
        tries = 0
        found: bytes | None = LEASE
        while found is not None and found.startswith(LEASE) and (now := loop.time()) < until:
            await asyncio.sleep(min(_POLL[min(tries, len(_POLL) - 1)], until - now))
            tries += 1
            found = await self.acquire(key, lease, seconds)
        return found

    def put(self, key: bytes, value: bytes, seconds: float) -> None:
        """Store ``value`` for ``seconds``, whatever the key holds, another's lease too."""
        self._store.send(b"SET", key, value, b"PX", _ms(seconds))

    def complete(self, key: bytes, lease: bytes, value: bytes, seconds: float) -> None:
        """Replace our lease by ``value``; does nothing where the lease is no longer ours."""
        self._store.send(b"EVAL", _COMPLETE, 1, key, lease, value, _ms(seconds))

    def extend(self, key: bytes, lease: bytes, seconds: float) -> None:
        """Let our lease run for ``seconds`` from now."""
        self._store.send(b"EVAL", _EXTEND, 1, key, lease, _ms(seconds))

    def release(self, key: bytes, lease: bytes) -> None:
        """Give up our lease: the first of those that wait acquires it."""
        self._store.send(b"EVAL", _RELEASE, 1, key, lease)


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))
