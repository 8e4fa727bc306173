"""The Anthropic Messages API (version 2023-06-01), spoken to clients as chat completions.

What has no counterpart is refused by name rather than dropped: n above 1, logprobs, audio,
a JSON Schema response format.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from tidegate.base.errors import RequestError
from tidegate.base.money import Usage, told_usage
from tidegate.gateway.call.ports import Encoded, Parsed, UnreadableEvent
from tidegate.gateway.wire.openai import ErrorBody, WireError, assemble, wire_usage
from tidegate.gateway.wire.sse import data_of
from tidegate.gateway.wire.upstream import UpstreamFault

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_PASSED = {"temperature", "top_p"}
_IGNORED = {"user", "metadata", "store", "seed", "parallel_tool_calls", "service_tier"}
_IGNORED |= {"frequency_penalty", "presence_penalty", "logit_bias", "safety_identifier"}
_DEFAULT_OUTPUT = 4096
_error = msgspec.json.Decoder(ErrorBody)


class AnthropicUsage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class Block(msgspec.Struct):
    type: str
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"{}")


class MessageAnswer(msgspec.Struct):
    id: str
    content: list[Block]
    stop_reason: str | None = None
    usage: AnthropicUsage | None = None


class BlockDelta(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class StreamEvent(msgspec.Struct):
    type: str
    index: int = 0
    message: msgspec.Raw = msgspec.Raw(b"")
    content_block: Block | None = None
    delta: BlockDelta | None = None
    usage: AnthropicUsage | None = None
    error: WireError | None = None


class StartMessage(msgspec.Struct):
    id: str
    usage: AnthropicUsage | None = None


_message = msgspec.json.Decoder(MessageAnswer)
_event = msgspec.json.Decoder(StreamEvent)
_start = msgspec.json.Decoder(StartMessage)


class AnthropicProvider:
    """The Messages API; base URL as in ``https://api.example.com/v1``."""

    def headers(self, key: str | None) -> list[tuple[str, str]]:
        version = [("anthropic-version", "2023-06-01")]
        return [("x-api-key", key), *version] if key else version

    def encode_chat(self, upstream: str, fields: dict[str, bytes], stream: bool) -> Encoded:
        values: dict[str, Any] = {n: msgspec.json.decode(v) for n, v in fields.items()}
        body: dict[str, Any] = {"model": upstream, "stream": stream}
        body["system"], body["messages"] = split_messages(values.pop("messages", []))
        if not body["system"]:
            del body["system"]
        limit = values.pop("max_completion_tokens", None), values.pop("max_tokens", None)
        body["max_tokens"] = limit[0] or limit[1] or _DEFAULT_OUTPUT
        stop = values.pop("stop", None)
        if stop:
            body["stop_sequences"] = [stop] if isinstance(stop, str) else stop
        tools = values.pop("tools", None)
        if tools:
            body["tools"] = [_tool(tool) for tool in tools]
        choice = values.pop("tool_choice", None)
        if choice is not None:
            body["tool_choice"] = _tool_choice(choice)
        if (values.get("response_format") or {}).get("type") == "text":
            values.pop("response_format")
        if values.get("n") == 1:
            values.pop("n")
        if not values.get("logprobs", True):
            values.pop("logprobs")
        for name, value in values.items():
            if name in _PASSED:
                body[name] = value
            elif name not in _IGNORED and value is not None:
                raise RequestError(
                    400,
                    "parameter_unsupported",
                    f"the provider of this route has no counterpart of {name!r}",
                    cure="leave it out, or route the request to an OpenAI-compatible model",
                    param=name,
                )
        return Encoded("/messages", msgspec.json.encode(body))

    def encode_embeddings(self, upstream: str, fields: dict[str, bytes]) -> Encoded:
        raise RequestError(
            400,
            "embeddings_unsupported",
            "the provider of this route has no embeddings",
            cure="use an embeddings model of another provider",
        )

    def parse_chat(self, body: bytes, upstream: str) -> Parsed:
        answer = _message.decode(body)
        text = "".join(block.text or "" for block in answer.content if block.type == "text")
        calls = [
            {
                "id": block.id,
                "type": "function",
                "function": {"name": block.name, "arguments": bytes(block.input).decode()},
            }
            for block in answer.content
            if block.type == "tool_use"
        ]
        finish = _FINISH.get(answer.stop_reason or "", answer.stop_reason)
        usage = usage_of(answer.usage) if answer.usage else None
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        if calls:
            message["tool_calls"] = calls
        out = {
            "id": answer.id,
            "object": "chat.completion",
            "created": int(time.time()),
            "model": upstream,
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": wire_usage(usage),
        }
        return Parsed(
            msgspec.json.encode(out), finish, finish == "stop", usage, text or None, bool(calls)
        )

    def parse_embeddings(self, body: bytes) -> Parsed:
        raise ValueError("this provider has no embeddings")

    def events(self, upstream: str, wants_usage: bool) -> AnthropicEvents:
        return AnthropicEvents(upstream, wants_usage)

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
    """Turns message events into chat.completion.chunk events, one for one."""

    def __init__(self, upstream: str, wants_usage: bool) -> None:
        self._upstream = upstream
        self._wants_usage = wants_usage
        self._id = "chatcmpl-unknown"
        self._created = int(time.time())
        self._parts: list[str] = []
        self._calls: list[list[str]] = []
        self._call_of_block: dict[int, int] = {}
        self._started: AnthropicUsage | None = None
        self.alive = False
        self.content = False
        self.pieces = self.chars = 0
        self.done = False
        self.finish: str | None = None
        self.usage: Usage | None = None
        self.tool_calls = False

    def feed(self, event: bytes) -> bytes:
        data = data_of(event)
        if not data:
            return b""
        try:
            value = _event.decode(data)
            return self._take(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UnreadableEvent(f"an event is not JSON: {error}") from None

    def _take(self, value: StreamEvent) -> bytes:
        match value.type:
            case "message_start":
                return self._start(value)
            case "content_block_start":
                return self._open_block(value)
            case "content_block_delta":
                return self._delta(value)
            case "message_delta":
                return self._end(value)
            case "message_stop":
                self.done = True
                return self._usage_chunk()
            case "error":
                words = value.error.message if value.error else "no reason given"
                said = value.error.type if value.error else None
                raise UpstreamFault(
                    "upstream_cut", f"the upstream sent an error event: {words}", said
                )
        return b""  # ping, content_block_stop, and kinds that are yet to come

    def _start(self, value: StreamEvent) -> bytes:
        if value.message:
            start = _start.decode(value.message)
            self._id, self._started = start.id, start.usage
        return self._chunk({"role": "assistant", "content": ""})

    def _open_block(self, value: StreamEvent) -> bytes:
        block = value.content_block
        if block is None or block.type != "tool_use":
            return b""
        self.content = self.alive = self.tool_calls = True
        position = len(self._calls)
        self._call_of_block[value.index] = position
        self._calls.append([block.id or "", block.name or "", ""])
        function = {"name": block.name, "arguments": ""}
        call = {"index": position, "id": block.id, "type": "function", "function": function}
        return self._chunk({"tool_calls": [call]})

    def _delta(self, value: StreamEvent) -> bytes:
        delta = value.delta
        if delta is None:
            return b""
        if delta.thinking:
            self._count(delta.thinking)
            return b""
        if delta.text:
            self.content = True
            self._count(delta.text)
            self._parts.append(delta.text)
            return self._chunk({"content": delta.text})
        if delta.partial_json:
            self._count(delta.partial_json)
            position = self._call_of_block.get(value.index, 0)
            if position < len(self._calls):
                self._calls[position][2] += delta.partial_json
            call = {"index": position, "function": {"arguments": delta.partial_json}}
            return self._chunk({"tool_calls": [call]})
        return b""

    def _count(self, written: str) -> None:
        self.alive = True
        self.pieces += 1
        self.chars += len(written)

    def _end(self, value: StreamEvent) -> bytes:
        if value.usage is not None:
            first = self._started or AnthropicUsage()
            self.usage = usage_of(
                AnthropicUsage(
                    input_tokens=value.usage.input_tokens or first.input_tokens,
                    output_tokens=value.usage.output_tokens,
                    cache_read_input_tokens=first.cache_read_input_tokens,
                    cache_creation_input_tokens=first.cache_creation_input_tokens,
                )
            )
        reason = value.delta.stop_reason if value.delta else None
        if reason is None:
            return b""
        self.content = self.alive = True
        self.finish = _FINISH.get(reason, reason)
        return self._chunk({}, self.finish)

    def _usage_chunk(self) -> bytes:
        if not self._wants_usage or self.usage is None:
            return b""
        return _event_bytes(self._envelope() | {"choices": [], "usage": wire_usage(self.usage)})

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _event_bytes(self._envelope() | {"choices": [choice]})

    def _envelope(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._upstream,
        }

    def text(self) -> str:
        return "".join(self._parts)

    def assembled(self) -> bytes:
        return assemble(self._id, self._upstream, self.text(), self._calls, self.finish, self.usage)


def split_messages(messages: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """(system text, messages) in the provider's form; neighbours of one role are joined."""
    system: list[str] = []
    out: list[dict[str, Any]] = []
    for message in messages:
        role = message.get("role")
        if role in ("system", "developer"):
            system.append(_text(message.get("content")))
            continue
        blocks = _blocks(message)
        to = "assistant" if role == "assistant" else "user"
        if out and out[-1]["role"] == to:
            out[-1]["content"] += blocks
        else:
            out.append({"role": to, "content": blocks})
    if not out and system:  # the provider wants at least one message of the user
        out.append({"role": "user", "content": [{"type": "text", "text": system.pop()}]})
    return "\n\n".join(system), out


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    if message.get("role") == "tool":
        said = _text(message.get("content"))
        return [
            {"type": "tool_result", "tool_use_id": message.get("tool_call_id"), "content": said}
        ]
    blocks: list[dict[str, Any]] = []
    content = message.get("content")
    if isinstance(content, str) and content:
        blocks.append({"type": "text", "text": content})
    elif isinstance(content, list):
        blocks += [_part(part) for part in content]
    for call in message.get("tool_calls") or ():
        function = call["function"]
        arguments = msgspec.json.decode(function.get("arguments") or "{}")
        blocks.append(
            {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments}
        )
    return blocks


def _part(part: dict[str, Any]) -> dict[str, Any]:
    match part.get("type"):
        case "text":
            return {"type": "text", "text": part.get("text", "")}
        case "image_url":
            url = part["image_url"]["url"]
            if url.startswith("data:"):
                kind, _, data = url[5:].partition(";base64,")
                source = {"type": "base64", "media_type": kind, "data": data}
            else:
                source = {"type": "url", "url": url}
            return {"type": "image", "source": source}
    raise RequestError(
        400,
        "content_unsupported",
        f"the provider of this route has no counterpart of content type {part.get('type')!r}",
        cure="send text or images, or route the request to another model",
        param="messages",
    )


def _text(content: str | list[Any] | None) -> str:
    if isinstance(content, str):
        return content
    return "".join(p.get("text", "") for p in content or () if isinstance(p, dict))


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function", {})
    out = {"name": function.get("name"), "input_schema": function.get("parameters") or _ANY}
    if function.get("description"):
        out["description"] = function["description"]
    return out


_ANY = {"type": "object", "properties": {}}


def _tool_choice(choice: Any) -> dict[str, Any]:
    if isinstance(choice, dict):
        return {"type": "tool", "name": choice.get("function", {}).get("name")}
    return {"type": {"required": "any", "none": "none"}.get(choice, "auto")}


def usage_of(usage: AnthropicUsage) -> Usage | None:
    """This provider counts cached tokens beside the prompt; here they are part of it."""
    cached = usage.cache_read_input_tokens
    parts = (usage.input_tokens, cached, usage.cache_creation_input_tokens)
    known = [tokens for tokens in parts if tokens is not None]
    return told_usage(sum(known) if known else None, usage.output_tokens, cached)


def _event_bytes(value: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"
