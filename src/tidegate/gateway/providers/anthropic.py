"""The Anthropic Messages API (version 2023-06-01).

What a request asks for and this API lacks is refused by name: several choices, log probabilities,
audio, files, penalties, a JSON Schema response format. What only labels a request (``user``,
``metadata``, ``store`` ...) and a ``seed``, which no API promises to obey, are left out, and the
receipt says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tidegate.base import RequestError, Usage, reported_usage
from tidegate.gateway.formats.openai import WireError, WireErrorBody
from tidegate.gateway.neutral import (
    STREAM_END,
    AnswerFacts,
    Choice,
    ChoiceEnd,
    Completion,
    Conversation,
    Event,
    Finish,
    ImagePart,
    Message,
    MessagePart,
    MessageStart,
    OfferedTool,
    RefusalPart,
    TextDelta,
    TextPart,
    ThoughtDelta,
    ThoughtPart,
    ToolCallDelta,
    ToolCallPart,
    ToolResultPart,
    UsageReport,
)
from tidegate.gateway.ports import (
    Ask,
    EncodedRequest,
    RouteKind,
    UnreadableEvent,
    UnsignedRequest,
)
from tidegate.gateway.wire.http_server import HeaderList
from tidegate.gateway.wire.sse import data_of
from tidegate.gateway.wire.upstream import UpstreamFault

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_LABELS = frozenset(("user", "metadata", "store", "service_tier", "safety_identifier"))
_LABELS |= {"prompt_cache_key", "prompt_cache_retention", "logprobs", "logit_bias"}
"""Fields of other APIs that this one lacks and that change no answer; the last two where they ask
for nothing (``false``, ``{}``)."""
_NOTHING = (b"false", b"{}", b"[]")
_DEFAULT_OUTPUT = 4096
_ANY_ARGUMENTS = {"type": "object", "properties": {}}
_error = msgspec.json.Decoder(WireErrorBody)


class AnthropicUsage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class AnthropicBlock(msgspec.Struct):
    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"{}")


class AnthropicMessage(msgspec.Struct):
    id: str
    content: list[AnthropicBlock]
    stop_reason: str | None = None
    usage: AnthropicUsage | None = None


class AnthropicDelta(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class AnthropicEvent(msgspec.Struct):
    type: str
    index: int = 0
    message: msgspec.Raw = msgspec.Raw(b"")
    content_block: AnthropicBlock | None = None
    delta: AnthropicDelta | None = None
    usage: AnthropicUsage | None = None
    error: WireError | None = None


class AnthropicStart(msgspec.Struct):
    id: str
    usage: AnthropicUsage | None = None


_message = msgspec.json.Decoder(AnthropicMessage)
_event = msgspec.json.Decoder(AnthropicEvent)
_start = msgspec.json.Decoder(AnthropicStart)


class AnthropicProvider:
    """The Messages API; base URL as in ``https://api.example.com/v1``."""

    wire = "anthropic"
    signs_each = False

    def sign(self, request: UnsignedRequest, key: str | None) -> HeaderList:
        version = [("anthropic-version", "2023-06-01")]
        return [("x-api-key", key), *version] if key else version

    def encode(self, upstream: str, ask: Ask, stream: bool) -> EncodedRequest:
        if ask.kind == "embeddings":
            raise RequestError(
                400,
                "embeddings_unsupported",
                "the provider of this route has no embeddings",
                cure="use an embeddings model of another provider",
            )
        asked = ask.conversation()
        dropped = _refuse_missing(asked)
        body: dict[str, Any] = {"model": upstream, "stream": stream}
        system, messages = split_messages(asked.messages)
        if system:
            body["system"] = system
        body["messages"] = messages
        body["max_tokens"] = asked.output_tokens or _DEFAULT_OUTPUT
        if asked.sampling.stop:
            body["stop_sequences"] = asked.sampling.stop
        for name in ("temperature", "top_p"):
            if (value := getattr(asked.sampling, name)) is not None:
                body[name] = value
        if asked.tools:
            body["tools"] = [_tool(tool) for tool in asked.tools]
        choice = _tool_choice(asked)
        if choice is not None:
            body["tool_choice"] = choice
        return EncodedRequest("/messages", msgspec.json.encode(body), dropped)

    def facts(self, kind: RouteKind, body: bytes) -> AnswerFacts:
        return AnswerFacts.of(self.read(body))

    def read(self, body: bytes) -> Completion:
        answer = _message.decode(body)
        parts: list[MessagePart] = []
        for block in answer.content:
            if block.type == "text" and block.text:
                parts.append(TextPart(block.text))
            elif block.type == "thinking" and block.thinking:
                parts.append(ThoughtPart(block.thinking, block.signature))
            elif block.type == "tool_use":
                arguments = bytes(block.input).decode()
                parts.append(ToolCallPart(block.id or "", block.name or "", arguments))
        usage = usage_of(answer.usage) if answer.usage else None
        return Completion(answer.id, (Choice(tuple(parts), _finish(answer.stop_reason)),), usage)

    def events(self) -> AnthropicEvents:
        return AnthropicEvents()

    def reason(self, body: bytes) -> tuple[str | None, str | None]:
        try:
            error = _error.decode(body).error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None, None
        if not isinstance(error, WireError):
            return None, error
        too_long = error.message is not None and "prompt is too long" in error.message
        return "context_length_exceeded" if too_long else error.type, error.message


class AnthropicEvents:
    """Reads the server-sent events of one message."""

    def __init__(self) -> None:
        self._calls = 0
        self._call_of_block: dict[int, int] = {}
        self._started: AnthropicUsage | None = None

    def feed(self, event: bytes) -> Sequence[Event]:
        data = data_of(event)
        if not data:
            return ()
        try:
            return self._read(_event.decode(data))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UnreadableEvent(f"an event is not JSON: {error}") from None

    def _read(self, value: AnthropicEvent) -> Sequence[Event]:
        match value.type:
            case "content_block_delta":
                return self._delta(value)
            case "message_start":
                return self._start(value)
            case "content_block_start":
                return self._open_block(value)
            case "message_delta":
                return self._end(value)
            case "message_stop":
                return (STREAM_END,)
            case "error":
                words = value.error.message if value.error else "no reason given"
                said = value.error.type if value.error else None
                raise UpstreamFault(
                    "upstream_cut", f"the upstream sent an error event: {words}", said
                )
        return ()  # ping, content_block_stop, and kinds that are yet to come

    def _start(self, value: AnthropicEvent) -> Sequence[Event]:
        if not value.message:
            return (MessageStart(None),)
        start = _start.decode(value.message)
        self._started = start.usage
        return (MessageStart(start.id),)

    def _open_block(self, value: AnthropicEvent) -> Sequence[Event]:
        block = value.content_block
        if block is None or block.type != "tool_use":
            return ()
        at = self._call_of_block[value.index] = self._calls
        self._calls += 1
        return (ToolCallDelta(0, at, block.id or "", block.name or "", ""),)

    def _delta(self, value: AnthropicEvent) -> Sequence[Event]:
        delta = value.delta
        if delta is None:
            return ()
        if delta.thinking:
            return (ThoughtDelta(0, delta.thinking, len(delta.thinking)),)
        if delta.text:
            return (TextDelta(0, delta.text),)
        if delta.partial_json:
            at = self._call_of_block.get(value.index, 0)
            return (ToolCallDelta(0, at, None, None, delta.partial_json),)
        return ()

    def _end(self, value: AnthropicEvent) -> Sequence[Event]:
        found: list[Event] = []
        if value.usage is not None:
            first = self._started or AnthropicUsage()
            told = AnthropicUsage(
                input_tokens=value.usage.input_tokens or first.input_tokens,
                output_tokens=value.usage.output_tokens,
                cache_read_input_tokens=first.cache_read_input_tokens,
                cache_creation_input_tokens=first.cache_creation_input_tokens,
            )
            found.append(UsageReport(usage_of(told)))
        reason = value.delta.stop_reason if value.delta else None
        if reason is not None:
            found.append(ChoiceEnd(0, _FINISH.get(reason, reason)))
        return found


def _finish(reason: str | None) -> Finish | None:
    return _FINISH.get(reason or "", reason)


def split_messages(messages: Sequence[Message]) -> tuple[Any, list[dict[str, Any]]]:
    """(system, messages) in the provider's form; neighbours of one role are joined, since roles
    must alternate. ``system`` is text, or blocks where one of them has a cache mark."""
    system: list[TextPart] = []
    out: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system":
            texts = [part for part in message.parts if isinstance(part, TextPart)]
            marks = [part.cache for part in texts if part.cache is not None]
            joined = "".join(part.text for part in texts)
            system.append(TextPart(joined, marks[-1] if marks else None))
            continue
        blocks = [_block(part) for part in message.parts]
        to = "assistant" if message.role == "assistant" else "user"
        if out and out[-1]["role"] == to:
            out[-1]["content"] += blocks
        else:
            out.append({"role": to, "content": blocks})
    if not out and system:  # the provider wants at least one message of the user
        out.append({"role": "user", "content": [_block(system.pop())]})
    if any(part.cache is not None for part in system):
        return [_block(part) for part in system], out
    return "\n\n".join(part.text for part in system), out


def _block(part: MessagePart) -> dict[str, Any]:
    match part:
        case TextPart():
            return _marked({"type": "text", "text": part.text}, part.cache)
        case ImagePart():
            if part.data is not None:
                source = {"type": "base64", "media_type": part.media_type, "data": part.data}
            else:
                source = {"type": "url", "url": part.url}
            return _marked({"type": "image", "source": source}, part.cache)
        case ToolCallPart():
            arguments = msgspec.json.decode(part.arguments)
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": arguments}
        case ToolResultPart():
            return {"type": "tool_result", "tool_use_id": part.call_id, "content": part.text}
        case ThoughtPart() if part.signature is not None:
            return {"type": "thinking", "thinking": part.text, "signature": part.signature}
        case RefusalPart():
            return {"type": "text", "text": part.text}
    raise RequestError(
        400,
        "content_unsupported",
        f"the provider of this route has no counterpart of content {type(part).__name__}",
        cure="send text or images, or route the request to another model",
        param="messages",
    )


def _marked(block: dict[str, Any], cache: str | None) -> dict[str, Any]:
    if cache is not None:
        mark = {"type": "ephemeral"} if cache == "5m" else {"type": "ephemeral", "ttl": cache}
        block["cache_control"] = mark
    return block


def _tool(tool: OfferedTool) -> dict[str, Any]:
    out: dict[str, Any] = {"name": tool.name, "input_schema": tool.parameters or _ANY_ARGUMENTS}
    if tool.description:
        out["description"] = tool.description
    return out


def _tool_choice(asked: Conversation) -> dict[str, Any] | None:
    choice = asked.tool_choice
    out: dict[str, Any] | None = None
    if choice is not None and choice.startswith("tool:"):
        out = {"type": "tool", "name": choice.removeprefix("tool:")}
    elif choice is not None:
        out = {"type": {"required": "any", "none": "none"}.get(choice, "auto")}
    if asked.parallel_tools is False and asked.tools and choice != "none":
        out = (out or {"type": "auto"}) | {"disable_parallel_tool_use": True}
    return out


def _refuse_missing(asked: Conversation) -> tuple[str, ...]:
    """Names of what is left out. Raises RequestError naming the first field that would change the
    answer and that this API lacks."""
    lacking: Mapping[str, bool] = {
        "n": asked.choices > 1,
        "response_format": asked.format is not None,
        "frequency_penalty": bool(asked.sampling.frequency_penalty),
        "presence_penalty": bool(asked.sampling.presence_penalty),
    }
    for name, wanted in lacking.items():
        if wanted:
            raise _unsupported(name)
    for name, value in asked.extras.items():
        if name not in _LABELS:
            raise _unsupported(name)
        if name in ("logprobs", "logit_bias") and value.strip() not in _NOTHING:
            raise _unsupported(name)
    seed = ("seed",) if asked.sampling.seed is not None else ()
    return (*asked.extras, *seed)


def _unsupported(name: str) -> RequestError:
    return RequestError(
        400,
        "parameter_unsupported",
        f"the provider of this route has no counterpart of {name!r}",
        cure="leave it out, or route the request to an OpenAI-compatible model",
        param=name,
    )


def usage_of(usage: AnthropicUsage) -> Usage | None:
    """This provider counts cached tokens beside the prompt; here they are part of it."""
    cached = usage.cache_read_input_tokens
    parts = (usage.input_tokens, cached, usage.cache_creation_input_tokens)
    known = [tokens for tokens in parts if tokens is not None]
    return reported_usage(sum(known) if known else None, usage.output_tokens, cached)
