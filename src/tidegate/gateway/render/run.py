"""Turn a request into what a model is asked: prompt, tools and output format of the route, caps."""

from __future__ import annotations

import msgspec

from tidegate.base import RequestError, count_tokens
from tidegate.gateway.plan import Plan
from tidegate.gateway.ports import Ask, Fields
from tidegate.gateway.render.rules import CapSource, PromptCap, output_cap, prompt_cap
from tidegate.gateway.values import Request, Switched


class Rendered(msgspec.Struct, frozen=True):
    """``capped``: what made the answer's length limit tighter than the release says, with the
    sentence that explains it."""

    ask: Ask
    capped: CapSource | None = None
    reason: str | None = None


async def render(request: Request) -> Rendered:
    """What a model is asked. Raises RequestError for inputs, sizes and missing messages."""
    ask, plan, switched = request.ask, request.plan, request.switched
    if ask.kind != "chat":
        if switched is not None:
            await check_prompt(ask, ask.fields, None, switched)
        return Rendered(ask)
    fields = dict(ask.fields)
    _put_prompt(plan, ask, fields, request.extension.inputs)
    written = plan.written(ask.dialect)
    if written:
        fields = {**written, **fields}
    if plan.checks and ask.choices > 1:
        raise _one_choice()
    spec = plan.route.caps.prompt_tokens
    if spec is not None or switched is not None:
        await check_prompt(ask, fields, spec, switched)
    capped = _cap(plan, ask, fields, switched)
    if switched is not None and switched.tools:
        ask.dialect.drop_tools(fields, switched.tools)
    ask = ask.with_fields(fields)
    if capped is None:
        return Rendered(ask)
    return Rendered(ask, *capped)


def _put_prompt(plan: Plan, ask: Ask, fields: Fields, inputs: dict[str, object]) -> None:
    """The rendered message of the route's prompt, then the messages of the request."""
    template = plan.template
    if template is not None:
        ask.dialect.put_prompt(fields, template.role, template.text(inputs))
        return
    if inputs:
        raise RequestError(
            400,
            "input_invalid",
            "this route has no prompt, so it takes no inputs",
            cure="leave out tidegate.inputs, or name a route with a prompt",
            param="tidegate.inputs",
        )
    ask.dialect.require_prompt(fields)


def _one_choice() -> RequestError:
    return RequestError(
        400,
        "choices_unguarded",
        "this route holds its answer against a schema, and only the first choice can be held",
        cure="leave out n, and send the request as often as answers are wanted",
        param="n",
    )


def _cap(
    plan: Plan, ask: Ask, fields: Fields, switched: Switched | None
) -> tuple[CapSource, str] | None:
    """Hold the output length to the caps of the release and of an operator; what tightened it
    beyond the release's, where that made a difference."""
    spec = plan.route.caps.output_tokens
    if spec is None and (switched is None or switched.output_tokens is None):
        return None
    cap = output_cap(spec, None if switched is None else switched.output_tokens)
    if cap.tokens is None:
        return None
    asked = ask.dialect.asked_output(fields)
    ask.dialect.cap_output(fields, cap.tokens)
    if cap.by == "switch" and (asked is None or asked > cap.tokens):
        return cap.by, cap.reason
    return None


def clamp_surge(ask: Ask, plan: Plan, surging: bool) -> Rendered:
    """Tighten the output length while the route's load is high. This comes after the cache, whose
    key is that of the request without it: a kept answer serves at any load."""
    surge = plan.route.caps.surge
    if surge is None or not surging or ask.kind != "chat":
        return Rendered(ask)
    asked = ask.dialect.asked_output(ask.fields)
    cap = output_cap(asked, None, surge.output_tokens, surging)
    if cap.by != "surge" or cap.tokens is None:
        return Rendered(ask)
    fields = dict(ask.fields)
    ask.dialect.cap_output(fields, cap.tokens)
    return Rendered(ask.with_fields(fields), cap.by, cap.reason)


async def check_prompt(
    ask: Ask, fields: Fields, spec: int | None, switched: Switched | None
) -> None:
    """Refuse a prompt (messages, or the input of embeddings) above the tightest cap. Counted only
    when it could be: a token is a byte or more."""
    raw = ask.dialect.prompt(fields)
    if switched is None and (spec is None or len(raw) <= spec):
        return
    cap = (
        prompt_cap(spec, None, None)
        if switched is None
        else prompt_cap(spec, switched.prompt_tokens, switched.killed_over)
    )
    if cap is None or len(raw) <= cap.tokens:
        return
    text, tokens = ask.dialect.prompt_text(raw)
    if len(text.encode(errors="replace")) + tokens <= cap.tokens:
        return
    tokens += await count_tokens(text)
    if tokens > cap.tokens:
        raise _too_long(cap, tokens)


def _too_long(cap: PromptCap, tokens: int) -> RequestError:
    if cap.by == "kill":
        return RequestError(
            403,
            "prompt_killed",
            f"the prompt has about {tokens} tokens; an operator has switched off those longer than "
            f"{cap.tokens}",
            cure="send less, or wait until an operator lifts the kill",
        )
    if cap.by == "switch":
        return RequestError(
            400,
            "prompt_too_long",
            f"the prompt has about {tokens} tokens, an operator allows {cap.tokens} at present",
            cure="send less, or wait until an operator lifts the cap",
        )
    return RequestError(
        400,
        "prompt_too_long",
        f"the prompt has about {tokens} tokens, the route allows {cap.tokens}",
        cure="send less, or raise caps.prompt_tokens of the route",
        param="messages",
    )
