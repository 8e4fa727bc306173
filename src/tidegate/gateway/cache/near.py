"""A worker's own memory of what it served a moment ago, in front of the shared store.

An entry lives for one second, so what is evicted or flushed in the store is gone here within that
second too. Only answers that were asked for again get here: it saves the round trip for calls that
come in bursts, which is when it matters, and costs the others nothing.
"""

from __future__ import annotations

from collections import OrderedDict

from tidegate.gateway.values import Answer

SECONDS = 1.0
_MOST_BYTES = 16 << 20


class NearCache:
    """Bounded in bytes of bodies; the entry that was put first leaves first."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._entries: OrderedDict[bytes, tuple[float, Answer]] = OrderedDict()
        self._most = most_bytes
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, now: float) -> Answer | None:
        """The answer put under ``key`` less than a second before ``now`` (loop time)."""
        entry = self._entries.get(key)
        return entry[1] if entry is not None and entry[0] > now else None

    def put(self, key: bytes, answer: Answer, now: float, ttl: float) -> None:
        old = self._entries.pop(key, None)
        if old is not None:
            self._bytes -= len(old[1].body)
        self._entries[key] = now + min(ttl, SECONDS), answer
        self._bytes += len(answer.body)
        while self._entries:
            until, oldest = next(iter(self._entries.values()))
            if until > now and self._bytes <= self._most:
                break
            self._entries.popitem(last=False)
            self._bytes -= len(oldest.body)
