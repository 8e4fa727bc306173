"""The shapes of the OpenAI API that the gateway reads; everything else passes through unread."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from tidegate.base.errors import RequestError
from tidegate.base.money import Usage, told_usage

Raw = msgspec.Raw


class Extension(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The request field ``tidegate``: what a templated route needs and the API has no word for.

    With the OpenAI SDK: ``extra_body={"tidegate": {"inputs": {"goal": "run 5 km"}}}``.
    """

    inputs: dict[str, Any] = {}
    """Values for the inputs that the route's prompt declares."""
    journey: str | None = None
    """Name of the journey, for clients that do not send W3C baggage."""
    priority: Literal["high", "normal", "low"] | None = None
    """Lowers the priority of the key in the queue of the route; never raises it."""
    user: str | None = None
    """Who asks, or in which conversation: the same one is served by the same release and variant.
    Goes no further than the gateway, unlike the request's ``user``."""
    context: dict[str, str | int | float | bool] = {}
    """What the rules of flags may ask about the request, beside what the gateway knows itself."""


class Message(msgspec.Struct):
    role: str
    content: str | list[Raw] | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ChatHead(msgspec.Struct):
    """What the gateway itself needs of a chat request, with the types the API documents."""

    model: str
    messages: list[Message] = []
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    n: int | None = None
    tools: list[Raw] | None = None
    tidegate: Extension | None = None


class EmbeddingsHead(msgspec.Struct):
    model: str
    input: str | list[str | int | list[int]]
    encoding_format: str | None = None
    tidegate: Extension | None = None


class PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class WireUsage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None

    def value(self) -> Usage | None:
        prompt, completion = self.prompt_tokens_details, self.completion_tokens_details
        return told_usage(
            self.prompt_tokens,
            self.completion_tokens,
            prompt.cached_tokens if prompt else None,
            completion.reasoning_tokens if completion else None,
        )


class AnswerMessage(msgspec.Struct):
    content: str | None = None
    tool_calls: list[Raw] | None = None
    refusal: str | None = None


class Choice(msgspec.Struct):
    finish_reason: str | None = None
    message: AnswerMessage | None = None


class ChatAnswer(msgspec.Struct):
    choices: list[Choice]
    usage: WireUsage | None = None


class EmbeddingsAnswer(msgspec.Struct):
    data: list[Raw]
    usage: WireUsage | None = None


class ToolFunctionDelta(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(msgspec.Struct):
    index: int = 0
    id: str | None = None
    function: ToolFunctionDelta | None = None


class Delta(msgspec.Struct):
    content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    """As newer servers name what the model thinks."""


class ChunkChoice(msgspec.Struct):
    index: int = 0
    delta: Delta | None = None
    finish_reason: str | None = None


class WireError(msgspec.Struct):
    message: str | None = None
    type: str | None = None
    code: str | int | None = None


class Chunk(msgspec.Struct):
    id: str | None = None
    choices: list[ChunkChoice] = []
    usage: WireUsage | None = None
    error: WireError | str | None = None


class ErrorBody(msgspec.Struct):
    error: WireError | str | None = None


def wire_usage(usage: Usage | None) -> dict[str, Any] | None:
    """``usage`` as the API writes it."""
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def assemble(
    id: str,
    model: str,
    text: str,
    calls: Sequence[Sequence[str]],
    finish: str | None,
    usage: Usage | None,
) -> bytes:
    """A chat completion put together from a stream. ``calls``: (id, name, arguments) of each."""
    message: dict[str, Any] = {"role": "assistant", "content": text or None}
    if calls:
        message["tool_calls"] = [
            {"id": one, "type": "function", "function": {"name": name, "arguments": arguments}}
            for one, name, arguments in calls
        ]
    return msgspec.json.encode(
        {
            "id": id,
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": wire_usage(usage),
        }
    )


def fixed_events(id: str, model: str, text: str, usage: Usage | None) -> bytes:
    """The events of a stream that says ``text`` at once, without its ``[DONE]``; with ``usage``
    when the client asked for it."""
    head = {"id": id, "object": "chat.completion.chunk", "created": int(time.time())}
    head["model"] = model
    choices: list[list[dict[str, Any]]] = [
        [{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}],
        [{"index": 0, "delta": {}, "finish_reason": "stop"}],
    ]
    events: list[dict[str, Any]] = [{**head, "choices": one} for one in choices]
    if usage is not None:
        events.append({**head, "choices": [], "usage": wire_usage(usage)})
    return b"".join(b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events)


_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error"}
_TYPES |= {404: "invalid_request_error", 409: "invalid_request_error"}
_TYPES |= {413: "invalid_request_error", 429: "rate_limit_error"}


def error_body(error: RequestError) -> bytes:
    """``{"error": {message, type, param, code, cure}}``: the OpenAI shape plus the cure."""
    return msgspec.json.encode({"error": _error_object(error)})


def error_event(error: RequestError) -> bytes:
    """The same as an in-band event of a stream that had begun."""
    return b"data: " + error_body(error) + b"\n\n"


def _error_object(error: RequestError) -> dict[str, Any]:
    return {
        "message": f"{error.message} ({error.cure})",
        "type": _TYPES.get(error.status, "api_error"),
        "param": error.param,
        "code": error.code,
        "cure": error.cure,
    }
