"""The chat completions and embeddings format of the OpenAI API (reference of 2026): the shapes that
are read, and the translation to and from the neutral values.

What is read is typed leniently where the API's servers differ; everything else passes unread.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tidegate.base import Usage, reported_usage
from tidegate.gateway.neutral import (
    EMPTY_EVENT,
    STREAM_END,
    AudioPart,
    ChoiceEnd,
    Completion,
    Conversation,
    Event,
    FilePart,
    ImagePart,
    Message,
    MessagePart,
    MessageStart,
    OfferedTool,
    OutputFormat,
    RefusalDelta,
    RefusalPart,
    Role,
    Sampling,
    StreamEnd,
    TextDelta,
    TextPart,
    ThoughtDelta,
    ThoughtPart,
    ToolCallDelta,
    ToolCallPart,
    ToolResultPart,
    Untranslatable,
    UsageReport,
)
from tidegate.gateway.ports import UnreadableEvent
from tidegate.gateway.wire.sse import data_of
from tidegate.gateway.wire.upstream import UpstreamFault

Raw = msgspec.Raw
WIRE = "openai"
"""Name of this wire format: what a dialect and a provider of it pass on without translation."""


class WirePromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class WireCompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class WireUsage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: WirePromptDetails | None = None
    completion_tokens_details: WireCompletionDetails | None = None

    def value(self) -> Usage | None:
        prompt, completion = self.prompt_tokens_details, self.completion_tokens_details
        return reported_usage(
            self.prompt_tokens,
            self.completion_tokens,
            prompt.cached_tokens if prompt else None,
            completion.reasoning_tokens if completion else None,
        )


class WireMessage(msgspec.Struct):
    content: str | None = None
    tool_calls: list[Raw] | None = None
    refusal: str | None = None


class WireChoice(msgspec.Struct):
    finish_reason: str | None = None
    message: WireMessage | None = None


class WireCompletion(msgspec.Struct):
    choices: list[WireChoice]
    id: str | None = None
    usage: WireUsage | None = None


class WireEmbeddings(msgspec.Struct):
    data: list[Raw]
    usage: WireUsage | None = None


class WireFunctionDelta(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class WireCallDelta(msgspec.Struct):
    index: int = 0
    id: str | None = None
    function: WireFunctionDelta | None = None


class WireDelta(msgspec.Struct):
    content: str | None = None
    tool_calls: list[WireCallDelta] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    """As newer servers name what the model thinks."""


class WireChunkChoice(msgspec.Struct):
    index: int = 0
    delta: WireDelta | None = None
    finish_reason: str | None = None


class WireError(msgspec.Struct):
    message: str | None = None
    type: str | None = None
    code: str | int | None = None


class WireChunk(msgspec.Struct):
    id: str | None = None
    choices: list[WireChunkChoice] = []
    usage: WireUsage | None = None
    error: WireError | str | None = None


class WireErrorBody(msgspec.Struct):
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


# -- to the neutral values ---------------------------------------------------------------------

_chunk = msgspec.json.Decoder(WireChunk)
_END = (STREAM_END,)
_EMPTY = (EMPTY_EVENT,)
_NO_FUNCTION = WireFunctionDelta()
_ROLES: dict[str | None, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_SAMPLING = ("temperature", "top_p", "seed", "frequency_penalty", "presence_penalty")
_LENGTHS = ("max_completion_tokens", "max_tokens")


def read_conversation(fields: Mapping[str, bytes]) -> Conversation:
    """The chat request whose JSON fields are ``fields``. Raises Untranslatable, and LookupError,
    TypeError, AttributeError or ValueError for shapes that the API does not have."""
    values: dict[str, Any] = {name: msgspec.json.decode(raw) for name, raw in fields.items()}
    messages = tuple(_read_message(one) for one in values.pop("messages", None) or ())
    lengths = [values.pop(name, None) for name in _LENGTHS]
    stop = values.pop("stop", None)
    sampling = {name: values.pop(name) for name in _SAMPLING if values.get(name) is not None}
    for name in _SAMPLING:
        values.pop(name, None)
    tools = tuple(_read_tool(tool) for tool in values.pop("tools", None) or ())
    choice = values.pop("tool_choice", None)
    return Conversation(
        messages=messages,
        tools=tools,
        tool_choice=None if choice is None else _read_tool_choice(choice),
        parallel_tools=values.pop("parallel_tool_calls", None),
        format=_read_format(values),
        sampling=Sampling(**sampling, stop=(stop,) if isinstance(stop, str) else tuple(stop or ())),
        output_tokens=next((length for length in lengths if length), None),
        choices=values.pop("n", None) or 1,
        extras={name: fields[name] for name, value in values.items() if value is not None},
    )


def _read_message(message: dict[str, Any]) -> Message:
    said = message.get("role")
    role = _ROLES.get(said)
    content = message.get("content")
    if role == "tool":
        result = ToolResultPart(message.get("tool_call_id") or "", _text_of(content))
        return Message("tool", (result,), message.get("name"))
    if role is None:
        raise Untranslatable("messages", f"the role {said!r}")
    parts: list[MessagePart] = []
    if isinstance(content, str):
        parts += [TextPart(content)] if content else []
    else:
        parts += (_read_part(part) for part in content or ())
    if message.get("refusal"):
        parts.append(RefusalPart(message["refusal"]))
    for call in message.get("tool_calls") or ():
        function = call["function"]
        arguments = function.get("arguments") or "{}"
        parts.append(ToolCallPart(call["id"], function["name"], arguments))
    return Message(role, tuple(parts), message.get("name"))


def _read_part(part: dict[str, Any]) -> MessagePart:
    match part.get("type"):
        case "text":
            return TextPart(part.get("text", ""), _cache_mark(part))
        case "refusal":
            return RefusalPart(part.get("refusal", ""))
        case "image_url":
            image = part["image_url"]
            url, detail = image["url"], image.get("detail")
            if url.startswith("data:"):
                kind, _, data = url[5:].partition(";base64,")
                return ImagePart(None, kind, data, detail, _cache_mark(part))
            return ImagePart(url, None, None, detail, _cache_mark(part))
        case "input_audio":
            audio = part["input_audio"]
            return AudioPart(audio["data"], audio["format"])
        case "file":
            file = part["file"]
            return FilePart(file.get("file_id"), file.get("filename"), file.get("file_data"))
    raise Untranslatable("messages", f"content type {part.get('type')!r}")


def _cache_mark(part: dict[str, Any]) -> str | None:
    """The lifetime of ``cache_control``, which OpenAI-compatible gateways take over from
    Anthropic's API."""
    mark = part.get("cache_control")
    return None if not isinstance(mark, dict) else str(mark.get("ttl") or "5m")


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(p.get("text", "") for p in content or () if isinstance(p, dict))


def _read_tool(tool: dict[str, Any]) -> OfferedTool:
    if tool.get("type", "function") != "function":
        raise Untranslatable("tools", f"a tool of type {tool.get('type')!r}")
    function = tool.get("function", {})
    return OfferedTool(
        function.get("name"),
        function.get("description"),
        function.get("parameters"),
        function.get("strict"),
    )


def _read_tool_choice(choice: Any) -> str:
    if not isinstance(choice, dict):
        return choice if choice in ("auto", "none", "required") else "auto"
    name = choice.get("function", {}).get("name")
    if name is None:
        raise Untranslatable("tool_choice", f"a choice of type {choice.get('type')!r}")
    return f"tool:{name}"


def _read_format(values: dict[str, Any]) -> OutputFormat | None:
    """Takes ``response_format`` out of ``values``."""
    asked = values.pop("response_format", None) or {}
    match asked.get("type"):
        case "json_schema":
            schema = asked.get("json_schema") or {}
            return OutputFormat(schema.get("name", ""), schema.get("schema"), schema.get("strict"))
        case "json_object":
            return OutputFormat("object")
        case None | "text":
            return None
    raise Untranslatable("response_format", f"a format of type {asked.get('type')!r}")


class ChunkReader:
    """Reads chat.completion.chunk events."""

    def __init__(self) -> None:
        self._named = False
        """Whether the id of the answer was read."""

    def feed(self, event: bytes) -> Sequence[Event]:
        data = data_of(event)
        if data is None:
            return ()
        if data == b"[DONE]":
            return _END
        if not data:
            return _EMPTY
        try:
            chunk = _chunk.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UnreadableEvent(f"an event is not a chunk: {error}") from None
        if chunk.error is not None:
            raise _error_fault(chunk.error)
        if event.startswith(b"event: error"):
            raise _error_fault("no reason given")
        if len(chunk.choices) == 1 and chunk.usage is None:
            one = chunk.choices[0]  # by far the most events are a text and nothing else
            delta = one.delta
            if (
                delta is not None
                and delta.content
                and not delta.tool_calls
                and not one.finish_reason
                and self._named
            ):
                return (TextDelta(one.index, delta.content),)
        return self._whole(chunk)

    def _whole(self, chunk: WireChunk) -> list[Event]:
        found: list[Event] = []
        if not self._named and chunk.id is not None:
            self._named = True
            found.append(MessageStart(chunk.id))
        if chunk.usage is not None:
            report = UsageReport(chunk.usage.value(), not chunk.choices)
            if report.alone:
                return [report]
            found.append(report)
        for choice in chunk.choices:
            if choice.delta is not None:
                _read_delta(choice.index, choice.delta, found)
            if choice.finish_reason:  # some endpoints send "" for none yet
                found.append(ChoiceEnd(choice.index, choice.finish_reason))
        return found


def _read_delta(choice: int, delta: WireDelta, found: list[Event]) -> None:
    if delta.content:
        found.append(TextDelta(choice, delta.content))
    elif delta.refusal:
        found.append(RefusalDelta(choice, delta.refusal))
    elif thought := delta.reasoning_content or delta.reasoning:
        written = isinstance(thought, str)
        found.append(
            ThoughtDelta(choice, thought if written else "", len(thought) if written else 1)
        )
    for call in delta.tool_calls or ():
        function = call.function or _NO_FUNCTION
        found.append(
            ToolCallDelta(choice, call.index, call.id, function.name, function.arguments or "")
        )


def _error_fault(error: WireError | str) -> UpstreamFault:
    """An error that came inside a stream."""
    code = message = None
    if isinstance(error, WireError):
        code, message = error.code if isinstance(error.code, str) else error.type, error.message
    else:
        message = error
    return UpstreamFault("upstream_cut", f"the upstream sent an error event: {message}", code)


# -- from the neutral values -------------------------------------------------------------------


def write_fields(asked: Conversation) -> dict[str, bytes]:
    """The JSON fields of a chat request."""
    values: dict[str, Any] = {
        "messages": [one for message in asked.messages for one in _messages(message)]
    }
    if asked.tools:
        values["tools"] = write_tools(asked.tools)
    if asked.tool_choice is not None:
        name = asked.tool_choice.removeprefix("tool:")
        forced = name != asked.tool_choice
        values["tool_choice"] = (
            {"type": "function", "function": {"name": name}} if forced else asked.tool_choice
        )
    if asked.parallel_tools is not None:
        values["parallel_tool_calls"] = asked.parallel_tools
    if asked.format is not None:
        values["response_format"] = write_format(asked.format)
    for field in _SAMPLING:
        value = getattr(asked.sampling, field)
        if value is not None:
            values[field] = value
    if asked.sampling.stop:
        values["stop"] = asked.sampling.stop
    if asked.output_tokens is not None:
        values["max_tokens"] = asked.output_tokens
    if asked.choices > 1:
        values["n"] = asked.choices
    return {name: msgspec.json.encode(value) for name, value in values.items()} | dict(asked.extras)


def _messages(message: Message) -> list[dict[str, Any]]:
    """A message; of tool results one for each, as the API wants."""
    results = [part for part in message.parts if isinstance(part, ToolResultPart)]
    if message.role == "tool" or results:
        return [{"role": "tool", "tool_call_id": r.call_id, "content": r.text} for r in results]
    out: dict[str, Any] = {"role": message.role, "content": None}
    calls = [_write_call(part) for part in message.parts if isinstance(part, ToolCallPart)]
    # A thought has no field in this API, which also wants none back.
    shown = (part for part in message.parts if not isinstance(part, (ToolCallPart, ThoughtPart)))
    content = [_write_part(part) for part in shown]
    if len(content) == 1 and content[0].keys() == {"type", "text"}:
        out["content"] = content[0]["text"]
    elif content:
        out["content"] = content
    if calls:
        out["tool_calls"] = calls
    if message.name is not None:
        out["name"] = message.name
    return [out]


def _write_call(call: ToolCallPart) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _write_part(part: MessagePart) -> dict[str, Any]:
    match part:
        case TextPart():
            return _marked({"type": "text", "text": part.text}, part.cache)
        case ImagePart():
            url = part.url or f"data:{part.media_type};base64,{part.data}"
            image = {"url": url} if part.detail is None else {"url": url, "detail": part.detail}
            return _marked({"type": "image_url", "image_url": image}, part.cache)
        case AudioPart():
            audio = {"data": part.data, "format": part.encoding}
            return {"type": "input_audio", "input_audio": audio}
        case FilePart():
            named = {"file_id": part.file_id, "filename": part.name, "file_data": part.data}
            return {"type": "file", "file": {k: v for k, v in named.items() if v is not None}}
        case RefusalPart():
            return {"type": "refusal", "refusal": part.text}
    raise Untranslatable("messages", f"a part of type {type(part).__name__}")


def _marked(part: dict[str, Any], cache: str | None) -> dict[str, Any]:
    if cache is not None:
        part["cache_control"] = {"type": "ephemeral", "ttl": cache}
    return part


def write_tools(tools: Sequence[OfferedTool]) -> list[dict[str, Any]]:
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
            }
            | ({} if tool.strict is None else {"strict": tool.strict}),
        }
        for tool in tools
    ]


def write_format(asked: OutputFormat) -> dict[str, Any]:
    if asked.schema is None:
        return {"type": "json_object"}
    schema: dict[str, Any] = {"name": asked.name}
    if asked.strict is not None:
        schema["strict"] = asked.strict
    return {"type": "json_schema", "json_schema": schema | {"schema": asked.schema}}


def write_completion(said: Completion, model: str) -> bytes:
    """A whole answer as ``model`` gives it."""
    return msgspec.json.encode(
        {
            "id": said.id,
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "choices": [
                {"index": at, "message": _answer(one.parts), "finish_reason": one.finish}
                for at, one in enumerate(said.choices)
            ],
            "usage": wire_usage(said.usage),
        }
    )


def _answer(parts: Sequence[MessagePart]) -> dict[str, Any]:
    text = "".join(part.text for part in parts if isinstance(part, TextPart))
    message: dict[str, Any] = {"role": "assistant", "content": text or None}
    refusal = "".join(part.text for part in parts if isinstance(part, RefusalPart))
    if refusal:
        message["refusal"] = refusal
    calls = [_write_call(part) for part in parts if isinstance(part, ToolCallPart)]
    if calls:
        message["tool_calls"] = calls
    return message


class ChunkWriter:
    """Neutral events as chat.completion.chunk events, one for one.

    Usage has a chunk of its own behind the finish, and only for a client that asked for it. What a
    model thinks has no field in this API, so thoughts are left out.
    """

    def __init__(self, model: str, shows_usage: bool) -> None:
        self._model = model
        self._shows_usage = shows_usage
        self._id = "chatcmpl-unknown"
        self._created = int(time.time())
        self._usage: Usage | None = None

    def write(self, events: Sequence[Event]) -> bytes:
        return b"".join(map(self._one, events))

    def _one(self, event: Event) -> bytes:
        match event:
            case TextDelta():
                return self._chunk(event.choice, {"content": event.text})
            case RefusalDelta():
                return self._chunk(event.choice, {"refusal": event.text})
            case ToolCallDelta():
                return self._chunk(event.choice, {"tool_calls": [_call_delta(event)]})
            case ChoiceEnd():
                return self._chunk(event.choice, {}, event.finish)
            case MessageStart():
                self._id = event.id or self._id
                return self._chunk(0, {"role": "assistant", "content": ""})
            case UsageReport():
                self._usage = event.usage or self._usage
            case StreamEnd() if self._shows_usage and self._usage is not None:
                return self._event({"choices": [], "usage": wire_usage(self._usage)})
        return b""

    def _chunk(self, choice: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        return self._event(
            {"choices": [{"index": choice, "delta": delta, "finish_reason": finish}]}
        )

    def _event(self, said: dict[str, Any]) -> bytes:
        head = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
        }
        return b"data: " + msgspec.json.encode(head | said) + b"\n\n"


def _call_delta(event: ToolCallDelta) -> dict[str, Any]:
    function: dict[str, Any] = {} if event.name is None else {"name": event.name}
    call: dict[str, Any] = {"index": event.index}
    if event.id is not None:
        call |= {"id": event.id, "type": "function"}
    return call | {"function": function | {"arguments": event.arguments}}
