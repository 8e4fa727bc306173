"""Stand-ins for when every model failed: a stale answer, then the route's fixed text. They cost
nothing and are marked (``x-tidegate-served-by``)."""

from __future__ import annotations

import msgspec

from tidegate.base import RequestError, Usage
from tidegate.gateway.cache import ExactCache
from tidegate.gateway.neutral import (
    STREAM_END,
    Choice,
    ChoiceEnd,
    Completion,
    MessageStart,
    TextDelta,
    TextPart,
    UsageReport,
)
from tidegate.gateway.plan import broken
from tidegate.gateway.values import Answer, Request
from tidegate.ledger import ServedBy

TEMPLATE = "template"
"""Named as the model of a fixed text."""


class StandIn(msgspec.Struct, frozen=True):
    answer: Answer
    served_by: ServedBy


def may_stand_in(error: RequestError) -> bool:
    """Whether a stand-in may be given: only where the service failed. What a client did wrong, or a
    provider refuses to answer at all, stays an error."""
    limited = error.status == 429 and error.code == "upstream_rate_limited"
    return error.status >= 500 or limited


async def stand_in(
    cache: ExactCache, request: Request, key: bytes | None, error: RequestError
) -> StandIn | None:
    """The stand-in for ``error``, or None. ``key``: the cache key of the request."""
    route = request.plan.route
    if not may_stand_in(error) or (route.stale is None and route.template is None):
        return None
    kept = await cache.recall(request, key)
    if kept is not None and kept.model not in request.killed_models:
        return StandIn(kept, "stale")
    if route.template is None or route.kind != "chat":
        return None
    answer = _fixed(request, route.template.text)
    if broken(request.plan.checks, answer.facts) is not None:
        return None  # it is not what the route promises: the failure is told instead
    return StandIn(answer, "template")


def _fixed(request: Request, text: str) -> Answer:
    nothing, name = Usage(), f"chatcmpl-{request.id}"
    dialect, ask = request.dialect, request.ask
    if ask.stream:
        writer = dialect.writer(TEMPLATE, ask.shows_usage)
        said = (MessageStart(name), TextDelta(0, text), ChoiceEnd(0, "stop"))
        body = writer.write((*said, UsageReport(nothing), STREAM_END))
    else:
        choice = Choice((TextPart(text),), "stop")
        body = dialect.write(Completion(name, (choice,), nothing), TEMPLATE)
    return Answer(
        body=body,
        stream=ask.stream,
        model=TEMPLATE,
        finish="stop",
        complete=True,
        usage=nothing,
        content=text,
    )
