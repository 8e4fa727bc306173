"""What travels along the path: one mutable ``Call`` per request, frozen answers between stages."""

from __future__ import annotations

from typing import Any

import msgspec

from tidegate.base.money import Usage
from tidegate.gateway.wire.openai import ChatHead, EmbeddingsHead
from tidegate.ledger.receipts import Attempt, CacheResult, Outcome

Headers = list[tuple[str, str]]


class Answer(msgspec.Struct, frozen=True):
    """A whole answer in the shape of the API. ``body`` is JSON, or the event bytes of a stream
    without its ending (``stream`` tells which)."""

    body: bytes
    stream: bool
    model: str
    finish: str | None
    complete: bool
    """True when the model ended by itself: not cut by a length, a filter or a fault."""
    usage: Usage | None
    content: str | None = None
    """Text of the first choice, when the guard or the ledger needs it."""
    tool_calls: bool = False
    stored_at: float | None = None
    """Seconds since the epoch when this answer was put into the cache; None for a fresh one."""


class Call:
    """One request on its way. Each stage fills in its part; ``record`` reads it all.

    ``ticks`` holds perf_counter_ns at the end of each stage; ``stages`` the milliseconds.
    """

    __slots__ = (
        "again",
        "answer_content",
        "at",
        "attempts",
        "body",
        "cache",
        "capped",
        "client_gone",
        "code",
        "deadline",
        "fallbacks",
        "fields",
        "finish",
        "first_token",
        "head",
        "id",
        "journey",
        "key_id",
        "kind",
        "model",
        "outcome",
        "parent",
        "partial_text",
        "plan",
        "priority",
        "queued",
        "recorded",
        "replayed",
        "stages",
        "started",
        "status",
        "stream",
        "tenant",
        "tick",
        "trace",
        "upstream",
        "usage",
        "wants_usage",
    )

    def __init__(self, id: str, at: float, started: int) -> None:
        self.id = id
        self.at = at
        """Wall time of arrival, seconds."""
        self.started = started
        """perf_counter_ns of arrival."""
        self.tick = started
        self.kind = "other"
        self.plan: Any = None
        self.head: ChatHead | EmbeddingsHead | None = None
        self.fields: dict[str, msgspec.Raw] = {}
        self.body = b""
        self.upstream: dict[str, bytes] = {}
        """Fields of the upstream request that all providers share: name to JSON."""
        self.stream = False
        self.wants_usage = False
        self.priority = 1
        """In the queue of its route: 0 high, 1 normal, 2 low."""
        self.again: Any = None
        """The hold of this request on its Idempotency-Key; None without the header."""
        self.queued: float | None = None
        """Milliseconds that it waited for a place of its route; None where there is no queue."""
        self.capped: str | None = None
        """What made the length limit tighter than the release says."""
        self.deadline = 0.0
        """Loop time at which the whole request must be over."""
        self.fallbacks = 0
        """Models that may still be asked when the present one gives no answer."""
        self.tenant: str | None = None
        self.key_id: str | None = None
        self.journey: str | None = None
        self.trace: str | None = None
        self.parent: str | None = None
        self.cache: CacheResult = "off"
        self.model: str | None = None
        self.usage: Usage | None = None
        self.replayed: Usage | None = None
        self.finish: str | None = None
        self.first_token: float | None = None
        self.attempts: list[Attempt] = []
        self.stages: dict[str, float] = {}
        self.status = 0
        self.outcome: Outcome = "failed"
        self.code: str | None = None
        self.answer_content = b""
        """JSON of the answer, for the ledger."""
        self.partial_text: str | None = None
        """Text that had come when a stream broke off; None when there was no stream."""
        self.client_gone = False
        self.recorded = False

    def leave(self, stage: str, now: int) -> None:
        """The stage ends at ``now`` (perf_counter_ns): what passed since the last mark is its."""
        self.stages[stage] = (now - self.tick) // 100 / 10_000
        self.tick = now
