"""Turn the request into the fields that every provider gets: messages, tools, schema, caps."""

from __future__ import annotations

import json
from typing import Any

from tidegate.base.errors import RequestError
from tidegate.base.tokens import count_tokens
from tidegate.gateway.render.rules import PromptCap, output_cap, prompt_cap
from tidegate.gateway.render.tools import drop_tools
from tidegate.gateway.values import Call
from tidegate.gateway.wire.openai import ChatHead

_OWN = frozenset(("model", "tidegate", "stream", "stream_options"))
"""Fields that the gateway itself answers for; all others pass through unread."""


async def render(call: Call) -> None:
    """Fill in ``call.upstream``. Raises RequestError for inputs, sizes and missing messages."""
    fields = {name: bytes(raw) for name, raw in call.fields.items() if name not in _OWN}
    plan = call.plan
    head = call.head
    if isinstance(head, ChatHead):
        call.stream = head.stream is True
        call.wants_usage = bool(head.stream_options and head.stream_options.include_usage)
        inputs = head.tidegate.inputs if head.tidegate else {}
        fields["messages"] = join_messages(plan, fields.get("messages", b""), inputs)
        if plan.tools and "tools" not in fields:
            fields["tools"] = plan.tools
        if plan.response_format and "response_format" not in fields:
            fields["response_format"] = plan.response_format
        if plan.guard is not None and head.n is not None and head.n > 1:
            raise _one_choice()
        spec = plan.route.caps.prompt_tokens
        if spec is not None or call.switched is not None:
            await check_prompt(call, fields["messages"], spec)
        clamp_output(fields, head, cap_of(call, head))
        if call.switched is not None and call.switched.tools:
            drop_tools(fields, call.switched.tools)
    elif call.switched is not None:
        await check_prompt(call, fields.get("input", b""), None)
    call.upstream = fields


def _one_choice() -> RequestError:
    return RequestError(
        400,
        "choices_unguarded",
        "this route holds its answer against a schema, and only the first choice can be held",
        cure="leave out n, and send the request as often as answers are wanted",
        param="n",
    )


def join_messages(plan: object, raw: bytes, inputs: dict[str, object]) -> bytes:
    """The rendered message of the route's prompt, then the messages of the request."""
    template = plan.template  # type: ignore[attr-defined]
    given = raw.strip()[1:-1].strip() if raw and raw != b"null" else b""
    if template is None:
        if inputs:
            raise RequestError(
                400,
                "input_invalid",
                "this route has no prompt, so it takes no inputs",
                cure="leave out tidegate.inputs, or name a route with a prompt",
                param="tidegate.inputs",
            )
        if not given:
            raise RequestError(
                400,
                "messages_missing",
                "the request has no messages",
                cure="send at least one message",
                param="messages",
            )
        return b"[" + given + b"]"
    first: bytes = template.message(inputs)
    return b"[" + first + (b"," + given if given else b"") + b"]"


def cap_of(call: Call, head: ChatHead) -> int | None:
    """The output length that the release and an operator allow; the receipt tells of an operator's
    that made a difference."""
    spec: int | None = call.plan.route.caps.output_tokens
    if call.switched is None:
        return spec
    cap = output_cap(spec, call.switched.output_tokens)
    if cap.by == "switch" and cap.tokens is not None:
        asked = [n for n in (head.max_completion_tokens, head.max_tokens) if n is not None]
        if not asked or not 0 <= min(asked) <= cap.tokens:
            call.capped = cap.by
    return cap.tokens


def clamp_output(fields: dict[str, bytes], head: ChatHead, cap: int | None) -> None:
    """Hold the output length to the route's cap; the name of the client's field is kept."""
    if cap is None:
        return
    fields.pop("n_predict", None)  # llama.cpp's own name, which there wins over the API's
    asked = {
        name: value
        for name, value in (
            ("max_completion_tokens", head.max_completion_tokens),
            ("max_tokens", head.max_tokens),
        )
        if value is not None
    }
    for name, value in asked.items():  # to some engines, less than 0 means without end
        fields[name] = str(min(value, cap) if value >= 0 else cap).encode()
    if not asked:
        fields.pop("max_completion_tokens", None)
        fields["max_tokens"] = str(cap).encode()


def clamp_surge(call: Call, surging: bool) -> None:
    """Tighten the output length while the route's load is high. This comes after the cache, whose
    key is that of the request without it: a kept answer serves at any load."""
    surge, head = call.plan.route.caps.surge, call.head
    if surge is None or not surging or not isinstance(head, ChatHead):
        return
    cap = output_cap(asked_output(call.upstream), None, surge.output_tokens, surging)
    if cap.by == "surge":
        clamp_output(call.upstream, head, cap.tokens)
        call.capped = cap.by


def asked_output(fields: dict[str, bytes]) -> int | None:
    """The length that the model would be asked for; None is as long as it likes."""
    values = [fields.get(name) for name in ("max_completion_tokens", "max_tokens")]
    asked = [
        int(max(-1.0, min(float(value), 1e15))) for value in values if value and value != b"null"
    ]
    return min((value for value in asked if value >= 0), default=None)


async def check_prompt(call: Call, raw: bytes, spec: int | None) -> None:
    """Refuse a prompt (messages, or the input of embeddings) above the tightest cap. Counted only
    when it could be: a token is a byte or more."""
    by_hand = call.switched
    if by_hand is None and (spec is None or len(raw) <= spec):
        return
    cap = (
        prompt_cap(spec, None, None)
        if by_hand is None
        else prompt_cap(spec, by_hand.prompt_tokens, by_hand.killed_over)
    )
    if cap is None or len(raw) <= cap.tokens:
        return
    text, tokens = _content(raw)
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


def _content(raw: bytes) -> tuple[str, int]:
    """The text of a prompt, and how many tokens it holds that came as numbers."""
    # What numbers say does not matter, and none is too large to be read so.
    try:
        value = json.loads(
            raw.decode(),
            object_pairs_hook=_once,
            parse_int=lambda _: 0,
            parse_float=lambda _: 0,
        )
    except RecursionError:  # where the body was read, a few more levels were left
        raise _too_deep() from None
    texts: list[str] = []
    numbers = 0
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, int):
            numbers += 1
        elif isinstance(part, list):
            numbers += len(part)
        elif isinstance(part, dict):
            texts.extend(_texts(part.get("content")))
    return "\n".join(texts), numbers


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else []
    return [
        part["text"]
        for part in parts
        if isinstance(part, dict) and isinstance(part.get("text"), str)
    ]


def _too_deep() -> RequestError:
    return RequestError(
        400,
        "request_invalid",
        "the messages are nested too deeply to be counted",
        cure="send the shapes that the OpenAI API reference documents",
        param="messages",
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are there once: of two that are the same, one would be counted and the
    other could be read by the model."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise RequestError(
            400,
            "request_invalid",
            "an object in messages has a name twice",
            cure="write each name once",
            param="messages",
        )
    return found
