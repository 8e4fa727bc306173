"""The OpenAI chat completions API, ``/v1/chat/completions`` (reference of 2026), as clients speak
it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from tidegate.base import RequestError
from tidegate.gateway.formats import openai
from tidegate.gateway.formats.openai_counting import content_of
from tidegate.gateway.formats.openai_errors import error_body, error_event
from tidegate.gateway.formats.openai_requests import read_body, user_of
from tidegate.gateway.formats.openai_tools import drop_tools
from tidegate.gateway.neutral import (
    Completion,
    Conversation,
    EmptyEvent,
    Event,
    OfferedTool,
    OutputFormat,
    StreamEnd,
    Transcript,
    UsageReport,
)
from tidegate.gateway.ports import NO_EXTENSION, Ask, ClientRequest, Extension, Fields, RouteKind
from tidegate.gateway.wire.sse import EventSplitter

_LENGTHS = ("max_completion_tokens", "max_tokens")
_WORST_LENGTHS = (*_LENGTHS, "n_predict")
"""With llama.cpp's own name, which there wins over the API's."""
_MOST_TOKENS = 1 << 40


class ChatMessageHead(msgspec.Struct):
    role: str
    content: str | list[msgspec.Raw] | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ChatHead(msgspec.Struct):
    """What the gateway itself needs of a chat request, with the types the API documents."""

    model: str
    messages: list[ChatMessageHead] = []
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    n: int | None = None
    tools: list[msgspec.Raw] | None = None
    tidegate: Extension | None = None


_head = msgspec.json.Decoder(ChatHead)
_OWN = frozenset(("model", "tidegate", "stream", "stream_options"))
"""Fields that the gateway itself answers for; all others pass through unread."""


class OpenAIChat:
    name = "openai-chat"
    kind: RouteKind = "chat"
    path = "/v1/chat/completions"
    wire = openai.WIRE
    inert = frozenset(("user", "metadata", "store", "safety_identifier", "prompt_cache_key"))
    stream_end = b"data: [DONE]\n\n"

    # -- requests -------------------------------------------------------------------------------

    def parse(self, body: bytes) -> ClientRequest:
        head, fields = read_body(_head, body)
        options = head.stream_options
        ask = Ask(
            self,
            {name: bytes(raw) for name, raw in fields.items() if name not in _OWN},
            head.stream is True,
            bool(options and options.include_usage),
            head.n or 1,
            head.temperature,
        )
        return ClientRequest(head.model, ask, fields, head.tidegate or NO_EXTENSION)

    def build(self, asked: Conversation) -> Ask:
        fields = openai.write_fields(asked)
        return Ask(self, fields, choices=asked.choices, temperature=asked.sampling.temperature)

    def read(self, fields: Mapping[str, bytes]) -> Conversation:
        return openai.read_conversation(fields)

    def prompt(self, fields: Mapping[str, bytes]) -> bytes:
        return fields.get("messages", b"")

    def prompt_text(self, prompt: bytes) -> tuple[str, int]:
        return content_of(prompt)

    def put_prompt(self, fields: Fields, role: str, text: str) -> None:
        first = msgspec.json.encode({"role": role, "content": text})
        given = _inside(fields)
        fields["messages"] = b"[" + first + (b"," + given if given else b"") + b"]"

    def require_prompt(self, fields: Fields) -> None:
        given = _inside(fields)
        if not given:
            raise RequestError(
                400,
                "messages_missing",
                "the request has no messages",
                cure="send at least one message",
                param="messages",
            )
        fields["messages"] = b"[" + given + b"]"

    def put_tools(self, fields: Fields, tools: Sequence[OfferedTool]) -> None:
        if "tools" not in fields:
            fields["tools"] = msgspec.json.encode(openai.write_tools(tools))

    def put_format(self, fields: Fields, form: OutputFormat) -> None:
        if "response_format" not in fields:
            fields["response_format"] = msgspec.json.encode(openai.write_format(form))

    def drop_tools(self, fields: Fields, killed: frozenset[str]) -> None:
        drop_tools(fields, killed)

    def asked_output(self, fields: Mapping[str, bytes]) -> int | None:
        lengths = [_number(fields[name]) for name in _LENGTHS if name in fields]
        return min((one for one in lengths if one >= 0), default=None)

    def worst_output(self, fields: Mapping[str, bytes]) -> int:
        return max((_number(fields[n]) for n in _WORST_LENGTHS if n in fields), default=-1)

    def cap_output(self, fields: Fields, tokens: int) -> None:
        """Hold the output length to ``tokens``; the name of the client's field is kept."""
        fields.pop("n_predict", None)
        asked = [name for name in _LENGTHS if fields.get(name, b"null") != b"null"]
        for name in asked:  # to some engines, less than 0 means without end
            length = _number(fields[name])
            fields[name] = b"%d" % (min(length, tokens) if length >= 0 else tokens)
        if not asked:
            fields.pop("max_completion_tokens", None)
            fields["max_tokens"] = b"%d" % tokens

    def tools_size(self, fields: Mapping[str, bytes]) -> int:
        return len(fields.get("tools", b""))

    def needs(self, fields: Mapping[str, bytes]) -> frozenset[str]:
        found = set()
        tools = fields.get("tools", b"")
        if len(tools) > 2 and tools != b"null":
            found.add("tools")
        if b'"json_schema"' in fields.get("response_format", b""):
            found.add("schema")
        if b'"image_url"' in fields.get("messages", b""):
            found.add("images")
        return frozenset(found)

    def user(self, fields: Mapping[str, bytes]) -> str | None:
        return user_of(fields)

    # -- answers --------------------------------------------------------------------------------

    def write(self, said: Completion, model: str) -> bytes:
        return openai.write_completion(said, model)

    def writer(self, model: str, shows_usage: bool) -> openai.ChunkWriter:
        return openai.ChunkWriter(model, shows_usage)

    def passes(self, events: Sequence[Event], shows_usage: bool) -> bool:
        if len(events) != 1:
            return True
        event = events[0]
        if isinstance(event, UsageReport):
            return shows_usage or not event.alone
        return not isinstance(event, (StreamEnd, EmptyEvent))

    def join(self, events: bytes, model: str) -> bytes:
        reader, said = openai.ChunkReader(), Transcript()
        for event in EventSplitter().feed(events):
            said.add(reader.feed(event))
        return self.write(said.completion(), model)

    def error_body(self, error: RequestError) -> bytes:
        return error_body(error)

    def error_event(self, error: RequestError) -> bytes:
        return error_event(error)


def _inside(fields: Mapping[str, bytes]) -> bytes:
    """What stands between the brackets of ``messages``."""
    raw = fields.get("messages", b"null")
    return raw.strip()[1:-1].strip() if raw != b"null" else b""


def _number(value: bytes) -> int:
    """A length in any spelling of a number: ``1e5`` is no less than 100000. -1 for what is none,
    and for less than 0, which asks for no bound in particular."""
    try:
        number = float(value)
    except ValueError:
        return -1
    return -1 if number < 0 else int(min(number, _MOST_TOKENS))
