"""A receipt for every request, whatever happened to it."""

from __future__ import annotations

from typing import Literal

import msgspec

from tidegate.base import Usage

Outcome = Literal[
    "served",  # the client got a whole answer
    "refused",  # the gateway said no: bad input, no key, a cap
    "failed",  # no model answered, the answer did not pass the guard, or this gateway had to end
    "upstream_cut",  # the stream broke after its first content; the client got an error event
    "client_gone",  # the client left before the end
]
CacheResult = Literal["off", "miss", "hit", "shared", "bypass", "down", "idempotent"]
"""``shared``: waited for an identical call in flight. ``bypass``: this request must not be cached.
``down``: the store did not answer in time. ``idempotent``: the kept answer to an earlier request
with the same Idempotency-Key."""

Purpose = Literal["user", "eval", "preview", "shadow", "load", "chaos"]
"""Whom a request was for. Only those of users count in users' sums."""

ServedBy = Literal["model", "fallback", "cache", "stale", "template"]
"""``model``: the first of the route. ``stale``: a kept answer whose time was over. ``template``:
the route's fixed text."""


ATTEMPT_CODES = frozenset(
    (
        "upstream_unreachable",
        "upstream_connect_timeout",
        "upstream_first_token_timeout",
        "upstream_idle_timeout",
        "upstream_rate_timeout",
        "upstream_answer_timeout",
        "upstream_total_timeout",
        "upstream_cut",
        "upstream_protocol",
        "upstream_too_large",
        "upstream_rate_limited",
        "upstream_key_rejected",
        "upstream_model_missing",
        "upstream_breaker_open",
        "upstream_error",
        "upstream_refused",
        "context_length_exceeded",
        "content_policy_violation",
        "output_invalid",
        "hedge_lost",
        "client_gone",
    )
)
"""Codes of failed tries that are counted each by itself."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One try at one model. Failed tries have a ``code``."""

    model: str
    ms: float
    status: int | None = None
    """HTTP status of the upstream; None when none came."""
    code: str | None = None
    usage: Usage | None = None
    """Tokens of a try that failed while it answered: they are billed beside those of the answer."""
    key: str | None = None
    """Fingerprint of the provider's key that was used."""
    waited: float = 0.0
    """Milliseconds of backoff before this try."""
    skipped: int = 0
    """Events of its stream that nobody could read and that were passed over."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What happened to one request. Times are milliseconds unless named otherwise."""

    id: str
    """UUIDv7, 32 hex digits: the idempotency key of the whole ledger."""
    at: float
    """Seconds since the epoch, when the request arrived."""
    kind: str
    """``chat``, ``embeddings``, or ``other`` when the request did not get that far."""
    status: int
    """HTTP status sent to the client (499 when it left before one was sent)."""
    outcome: Outcome
    purpose: Purpose = "user"
    release: str | None = None
    """Digest of the release that served it."""
    route: str | None = None
    journey: str | None = None
    tenant: str | None = None
    key: str | None = None
    """Id of the key, never the key."""
    model: str | None = None
    """Name of the model that answered."""
    stream: bool = False
    code: str | None = None
    """Error code, when there was one."""
    finish: str | None = None
    """Finish reason of the answer."""
    usage: Usage | None = None
    """Tokens billed by the provider for this request; None when no provider was asked or the
    numbers are unknown."""
    replayed: Usage | None = None
    """Tokens of an answer that came out of the cache and were not billed again."""
    cost: float | None = None
    """US dollars; None means unknown. A cache hit costs 0."""
    cache: CacheResult = "off"
    stages: dict[str, float] = {}
    """Milliseconds spent in each stage that was entered (``stages.STAGES``)."""
    reasons: dict[str, str] = {}
    """Stage to the sentence that its decision gave: why routed so, why not from the cache, why
    capped, why asked again."""
    queued: float | None = None
    """Milliseconds that it waited for a place of its route (the stage ``queue``); None where the
    route has no queue."""
    served_by: ServedBy | None = None
    """Where the answer came from; None when there was none."""
    capped: str | None = None
    """What made the answer's length limit tighter than the release says: ``surge`` (load) or
    ``switch`` (an operator)."""
    variant: str | None = None
    """Which variant the flag of the route gave this request; None where it gave none."""
    variant_reason: str | None = None
    """Why, in OpenFeature's words: STATIC, DEFAULT, TARGETING_MATCH, DISABLED, ERROR."""
    first_token: float | None = None
    """Milliseconds from arrival to the first content sent to a streaming client."""
    total: float = 0.0
    """Milliseconds from arrival to the end of the answer."""
    attempts: tuple[Attempt, ...] = ()
    trace: str | None = None
    """W3C trace id, 32 hex digits."""
    parent: str | None = None
    """W3C id of the span that sent the request, 16 hex digits."""
    worker: int = 0
    """Process id of the worker."""

    @property
    def billed(self) -> list[Usage]:
        """Tokens of the answer, and of the tries that failed while they answered: what ``cost``
        is of."""
        found = [attempt.usage for attempt in self.attempts if attempt.usage is not None]
        return found if self.usage is None else [self.usage, *found]
