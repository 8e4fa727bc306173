"""What travels along the path: frozen values that a stage is given and returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from tidegate.base import Usage
from tidegate.gateway.neutral import AnswerFacts
from tidegate.gateway.plan import CountedLimit, LoadedRelease, Plan
from tidegate.gateway.ports import Ask, ClientDialect, Extension
from tidegate.gateway.wire.http_server import HeaderList
from tidegate.ledger import CacheResult, Outcome
from tidegate.stores import CounterReservation, Window
from tidegate.switches import Priority


class Answer(msgspec.Struct, frozen=True):
    """A whole answer as a client gets it. ``body`` is JSON, or the events of a stream without its
    end (``stream`` tells which)."""

    body: bytes
    stream: bool
    model: str
    finish: str | None
    complete: bool
    """Whether the model ended by itself: not cut by a length, a filter or a fault."""
    usage: Usage | None
    content: str | None = None
    """Text of the first choice, when a check or the ledger needs it."""
    tool_calls: bool = False
    stored_at: float | None = None
    """Seconds since the epoch when this answer was put into the cache; None for a fresh one."""

    @property
    def facts(self) -> AnswerFacts:
        return AnswerFacts(self.finish, self.complete, self.usage, self.content, self.tool_calls)


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


class TraceContext(msgspec.Struct, frozen=True):
    """What the headers say of where the request belongs."""

    trace: str | None = None
    """W3C trace id."""
    parent: str | None = None
    """W3C id of the span that sent it."""
    journey: str | None = None


NO_CONTEXT = TraceContext()


class Caller(msgspec.Struct, frozen=True):
    """Whose key the request has; all None where keys are off."""

    key_id: str | None = None
    tenant: str | None = None
    priority: Priority = "normal"


NOBODY = Caller()


class Steering(msgspec.Struct, frozen=True):
    """Which release and which variant of the route serve a request."""

    release: LoadedRelease
    plan: Plan
    variant: str | None = None
    reason: str | None = None
    """Of the variant, in OpenFeature's words."""


class Request(msgspec.Struct, frozen=True, eq=False):
    """An admitted request: who asks what, and what serves it."""

    id: str
    at: float
    """Wall time of arrival, seconds."""
    deadline: float
    """Loop time at which it must be over, every attempt included."""
    dialect: ClientDialect
    ask: Ask
    """As the client sent it."""
    body_fields: Mapping[str, msgspec.Raw]
    extension: Extension
    caller: Caller
    plan: Plan
    switched: Switched | None = None
    """None while nothing is killed or capped by hand."""
    priority: int = 1
    """In the queue of its route: 0 high, 1 normal, 2 low."""

    @property
    def killed_models(self) -> frozenset[str]:
        return frozenset() if self.switched is None else self.switched.models


class LimitReservation(msgspec.Struct, frozen=True, eq=False):
    """What a request has asked of its limits' counters; the store's answer comes later."""

    limits: tuple[CountedLimit, ...]
    windows: tuple[Window, ...]
    reservation: CounterReservation
    """With one part for each of ``limits``."""


class Grant(msgspec.Struct, frozen=True, eq=False):
    """The store's answer to a reservation."""

    made: LimitReservation
    uncounted: bool = False
    """Let pass while the counters could not be reached: what it used is settled when they can."""
    barred: frozenset[str] = frozenset()
    """Models that may not be asked, as a limit of theirs has not enough left."""
    headers: tuple[tuple[str, str], ...] = ()


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a request ends: what the client gets last, and what the receipt says."""

    status: int
    outcome: Outcome
    code: str | None = None
    body: bytes = b""
    """The whole answer; of a stream that has begun its last bytes."""
    finish: str | None = None
    replayed: Usage | None = None
    """Tokens of a kept answer, which nobody bills again."""
    stored_at: float | None = None
    retry_after: str | None = None


__all__ = [
    "Answer",
    "CacheResult",
    "Caller",
    "Ending",
    "Grant",
    "HeaderList",
    "LimitReservation",
    "Request",
    "Steering",
    "Switched",
    "TraceContext",
]
