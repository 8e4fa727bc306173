"""From a request's body to a ModelReply: what is asked, what is refused, what is said and when."""

from __future__ import annotations

import random
from typing import Any, Literal

import msgspec

from tidegate.testing.answers import (
    Json,
    ScriptedAnswer,
    ToolCall,
    compose,
    encode_vector,
    split_tokens,
    text_of,
    vector_of,
)
from tidegate.testing.beats import Beats, encode, plain
from tidegate.testing.dialects import STATUS_CODES, ModelReply, ServerDialect
from tidegate.testing.faults import Fault, Filtered, Mutate, NoUsage, UsageWithChoices
from tidegate.testing.timings import Constant, Timing

CREATED = 1_767_225_600
"""Answers carry this one time (2026-01-01), so that equal requests give equal bytes."""


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """How the simulated model answers."""

    answer: ScriptedAnswer
    first_token: Timing = Constant()
    inter_token: Timing = Constant()
    seed: int = 0
    models: tuple[str, ...] = ("mock",)
    any_model: bool = True
    """Answer for every model name; otherwise 404 for one that is not in ``models``."""
    api_key: str | None = None
    cached_share: float = 0.0
    """Share of the prompt tokens reported as read from the provider's cache."""
    reasoning_tokens: int = 0
    dimensions: int = 384


class ProviderRefusal(Exception):
    """The request is wrong; ``status`` and ``message`` say how."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code

    def beats(self, dialect: ServerDialect) -> Beats:
        kind, code, _ = STATUS_CODES[self.status]
        body = dialect.error_body(self.status, kind, self.code or code, self.message)
        return plain(self.status, body)


def decode_body(body: bytes, behaviour: Behaviour) -> Json:
    """The request's JSON object with a known model; raises ProviderRefusal."""
    try:
        request = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise ProviderRefusal(
            400, f"We could not parse the JSON body of your request: {error}"
        ) from None
    if not isinstance(request, dict):
        raise ProviderRefusal(400, "The body must be a JSON object.")
    model = request.get("model")
    if not isinstance(model, str) or not model:
        raise ProviderRefusal(400, "You must provide a model parameter.")
    if not behaviour.any_model and model not in behaviour.models:
        raise ProviderRefusal(404, f"The model `{model}` does not exist.")
    return request


def make_reply(request: Json, index: int, behaviour: Behaviour, fault: Fault | None) -> ModelReply:
    """The answer to a chat or messages request; raises ProviderRefusal as a provider
    would give it."""
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ProviderRefusal(400, "'messages' must be a list with at least one message.")
    if not all(isinstance(message, dict) and "role" in message for message in messages):
        raise ProviderRefusal(400, "Each of 'messages' must be an object with a 'role'.")
    if request.get("n") not in (None, 1):
        raise ProviderRefusal(400, "This server answers with n=1 only.")
    seed = seed_of(index, behaviour)
    answer = compose(behaviour.answer, request, seed)
    if isinstance(fault, Mutate):
        answer = _mutated(answer, fault)
    tool = isinstance(answer, ToolCall)
    tokens = split_tokens(answer.text if isinstance(answer, ToolCall) else answer)
    finish: Literal["stop", "length", "tool_calls", "content_filter"] = (
        "tool_calls" if tool else "stop"
    )
    limit = _token_limit(request)
    if limit is not None and len(tokens) > limit:
        tokens, finish = tokens[:limit], "length"
    if isinstance(fault, Filtered):
        tokens, finish = tokens[: fault.after], "content_filter"
    prompt = count_prompt(request)
    return ModelReply(
        request=request,
        id=f"chatcmpl-{seed:08x}",
        model=request["model"],
        created=CREATED,
        answer=answer,
        tokens=tokens,
        finish=finish,
        prompt_tokens=prompt,
        cached_tokens=int(prompt * behaviour.cached_share),
        reasoning_tokens=behaviour.reasoning_tokens,
        waits=waits_of(len(tokens), index, behaviour),
        usage=_USAGE.get(type(fault), "own"),
    )


def _mutated(answer: str | ToolCall, fault: Mutate) -> str | ToolCall:
    """An answer that is no JSON object is cut in half: nothing in it can be changed by name."""
    text = answer.text if isinstance(answer, ToolCall) else answer
    try:
        members = sorted(msgspec.json.decode(text, type=dict[str, Any]).items())
    except msgspec.MsgspecError:
        members = []
    if fault.how == "break" or not members:
        changed = text[: len(text) // 2]
    else:
        (name, value), *rest = members
        first: list[tuple[str, Any]] = {
            "drop": [],
            "rename": [(f"{name}_", value)],
            "retype": [(name, [value])],
        }[fault.how]
        changed = encode(dict(first + rest)).decode()
    return ToolCall(answer.name, changed) if isinstance(answer, ToolCall) else changed


_USAGE: dict[type, Literal["with_choices", "none"]] = {
    NoUsage: "none",
    UsageWithChoices: "with_choices",
}


def _token_limit(request: Json) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        limit = request.get(name)
        if limit is not None:
            if not isinstance(limit, int) or limit < 1:
                raise ProviderRefusal(400, f"'{name}' must be an integer of at least 1.")
            return limit
    return None


def count_prompt(request: Json) -> int:
    """Words of the prompt's messages, system text and tools, plus 3 a message."""
    texts = [text_of(message.get("content")) for message in request["messages"]]
    words = sum(len(text.split()) + 3 for text in texts) + len(
        text_of(request.get("system")).split()
    )
    return words + (len(encode(request["tools"])) // 4 if request.get("tools") else 0)


def seed_of(index: int, behaviour: Behaviour) -> int:
    return behaviour.seed * 1_000_003 + index


def waits_of(tokens: int, index: int, behaviour: Behaviour) -> list[float]:
    """Seconds before each token of request ``index``; the first is the first-token time."""
    first, inter = behaviour.first_token, behaviour.inter_token
    if first.fixed is not None and inter.fixed is not None:
        return [first.fixed] + [inter.fixed] * (tokens - 1)
    source = random.Random(seed_of(index, behaviour))
    return [first.draw(source)] + [inter.draw(source) for _ in range(tokens - 1)]


def embed(request: Json, behaviour: Behaviour) -> bytes:
    """The body of an embeddings answer; raises ProviderRefusal."""
    given = request.get("input")
    texts = [given] if isinstance(given, str) else given
    if isinstance(texts, list) and texts and all(isinstance(t, int) for t in texts):
        texts = [texts]
    if not isinstance(texts, list) or not texts or not all(_embeddable(text) for text in texts):
        raise ProviderRefusal(400, "'input' must be a text or a list of texts or of token lists.")
    dimensions = request.get("dimensions") or behaviour.dimensions
    if not isinstance(dimensions, int) or not 1 <= dimensions <= 4096:
        raise ProviderRefusal(400, "'dimensions' must be an integer from 1 to 4096.")
    form = request.get("encoding_format", "float")
    if form not in ("float", "base64"):
        raise ProviderRefusal(400, "'encoding_format' must be float or base64.")
    words = sum(len(text.split()) if isinstance(text, str) else len(text) for text in texts)
    data: list[dict[str, Any]] = [
        {
            "object": "embedding",
            "index": at,
            "embedding": encode_vector(vector_of(str(text), dimensions), form),
        }
        for at, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": words, "total_tokens": words}
    return encode({"object": "list", "data": data, "model": request["model"], "usage": usage})


def _embeddable(text: object) -> bool:
    return (isinstance(text, str) and text != "") or (
        isinstance(text, list) and bool(text) and all(isinstance(t, int) for t in text)
    )
