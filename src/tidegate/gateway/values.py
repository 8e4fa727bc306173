"""What travels along the path: one mutable ``Call`` per request, frozen answers between stages."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tidegate.base.money import Usage
from tidegate.gateway.wire.openai import ChatHead, EmbeddingsHead
from tidegate.ledger.receipts import Attempt, CacheResult, Outcome, ServedBy
from tidegate.stores.counters import CounterReservation
from tidegate.stores.reservations import ReservationPart
from tidegate.stores.windows import Calendar, Unit, Window

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


class Switched(msgspec.Struct, frozen=True, kw_only=True):
    """What operators have capped and killed by hand, for one route."""

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    surge: Literal["on", "off"] | None = None
    """Holds or lifts the route's cap under load, whatever the load is."""
    killed_over: int | None = None
    """Longer prompts, in tokens, are refused."""
    models: frozenset[str] = frozenset()
    """May not be asked, and what they answered before is not served."""
    tools: frozenset[str] = frozenset()
    """Are not offered to a model."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One limit as it counts the requests of one route. Dollars are whole billionths."""

    name: str
    stem: str
    """How the names of its counters begin."""
    unit: Unit
    calendar: Calendar | None
    """None: a bucket that drains at ``rate``."""
    per: str
    scope: str | None
    """Whom the counter is for; None: the key or the tenant of the request."""
    covers: int
    """Bits of the models whose use counts, of those that may be asked."""
    models: frozenset[str]
    """Their names."""
    charge: bool
    """Used once the request is let in, whatever becomes of it; else borrowed, then settled."""
    capacity: int
    rate: float
    """Units that drain in a millisecond; 0: a budget."""
    ttl: int
    """Milliseconds that a counter is kept, beyond its window."""
    closed: bool
    """Whether requests are refused while the counters cannot be reached."""
    prompt_nano: float
    output_nano: float
    """Billionths of a dollar a token, of the dearest model that is covered."""
    most: tuple[str, str]
    """The header that says how much it allows."""
    remaining: str
    reset: str
    """Names of the headers that say how much is left, and when all of it is."""


class Loan:
    """What a request has borrowed: ``admit`` takes it out, ``record`` settles it."""

    __slots__ = ("barred", "headers", "lines", "parts", "reservation", "uncounted", "windows")

    def __init__(
        self,
        lines: tuple[Line, ...],
        windows: list[Window],
        parts: list[ReservationPart],
        reservation: CounterReservation,
    ) -> None:
        self.lines = lines
        self.windows = windows
        self.parts = parts
        """One for each line."""
        self.reservation = reservation
        self.uncounted = False
        """Let pass while the counters could not be reached: what it used is told when they can."""
        self.barred: frozenset[str] = frozenset()
        """Models that may not be asked, as a limit of theirs has not enough left."""
        self.headers: Headers = []


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
        "cache_key",
        "capped",
        "client_gone",
        "code",
        "deadline",
        "fallbacks",
        "fields",
        "finish",
        "first_token",
        "guarded",
        "head",
        "id",
        "journey",
        "key_id",
        "kind",
        "loan",
        "model",
        "outcome",
        "parent",
        "plan",
        "priority",
        "queued",
        "recorded",
        "release",
        "replayed",
        "served_by",
        "stages",
        "started",
        "status",
        "stream",
        "switched",
        "tenant",
        "tick",
        "trace",
        "upstream",
        "usage",
        "variant",
        "variant_reason",
        "waited",
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
        self.release: Any = None
        """The release that serves it; not unloaded before the request is over."""
        self.variant: str | None = None
        self.variant_reason: str | None = None
        """What the route's flag says of it."""
        self.switched: Switched | None = None
        """What operators switched by hand; None while nothing is killed or capped."""
        self.trace: str | None = None
        self.parent: str | None = None
        self.loan: Loan | None = None
        """What was borrowed of limits; None where the route has none."""
        self.cache: CacheResult = "off"
        self.cache_key: bytes | None = None
        self.served_by: ServedBy | None = None
        self.guarded = False
        """Whether the answer was held against the route's schema already."""
        self.waited = 0.0
        """Milliseconds of backoff before the try that is under way."""
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
        self.client_gone = False
        self.recorded = False

    def leave(self, stage: str, now: int) -> None:
        """The stage ends at ``now`` (perf_counter_ns): what passed since the last mark is its."""
        self.stages[stage] = (now - self.tick) // 100 / 10_000
        self.tick = now
