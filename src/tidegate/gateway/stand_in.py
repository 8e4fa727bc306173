"""What stands in for an answer when no model gave one: a kept answer whose time is over, then the
route's fixed text. It costs nothing and says so (``x-tidegate-served-by``)."""

from __future__ import annotations

from tidegate.base.errors import RequestError
from tidegate.base.money import Usage
from tidegate.gateway.cache import ExactCache
from tidegate.gateway.values import Answer, Call
from tidegate.gateway.wire.openai import assemble, fixed_events

TEMPLATE = "template"
"""Named as the model of a fixed text."""


def may_stand_in(error: RequestError) -> bool:
    """Only where the service failed: what a client did wrong, or a provider refuses to answer at
    all, stays an error."""
    limited = error.status == 429 and error.code == "upstream_rate_limited"
    return error.status >= 500 or limited


async def stand_in(cache: ExactCache, call: Call, error: RequestError) -> Answer | None:
    """The answer to give instead of ``error``; None when there is none."""
    route = call.plan.route
    if not may_stand_in(error) or (route.stale is None and route.template is None):
        return None
    kept = await cache.recall(call)
    killed = call.switched.models if call.switched is not None else ()
    if kept is not None and kept.model not in killed:
        call.served_by = "stale"
        return kept
    if route.template is None or route.kind != "chat":
        return None
    answer = _fixed(call, route.template.text)
    guard = call.plan.guard
    if guard is not None and guard.fault(answer) is not None:
        return None  # it is not what the route promises: the failure is told instead
    call.served_by = "template"
    return answer


def _fixed(call: Call, text: str) -> Answer:
    nothing, name = Usage(), f"chatcmpl-{call.id}"
    if call.stream:
        body = fixed_events(name, TEMPLATE, text, nothing if call.wants_usage else None)
    else:
        body = assemble(name, TEMPLATE, text, [], "stop", nothing)
    return Answer(
        body=body,
        stream=call.stream,
        model=TEMPLATE,
        finish="stop",
        complete=True,
        usage=nothing,
        content=text,
    )
