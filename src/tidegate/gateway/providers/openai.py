"""Any OpenAI-compatible endpoint, local servers among them: bytes pass through unchanged."""

from __future__ import annotations

import msgspec

from tidegate.gateway.formats import openai
from tidegate.gateway.formats.openai import (
    ChunkReader,
    WireCompletion,
    WireEmbeddings,
    WireError,
    WireErrorBody,
)
from tidegate.gateway.neutral import (
    AnswerFacts,
    Choice,
    Completion,
    MessagePart,
    RefusalPart,
    TextPart,
    ToolCallPart,
)
from tidegate.gateway.ports import (
    Ask,
    EncodedRequest,
    Fields,
    RouteKind,
    UnsignedRequest,
)
from tidegate.gateway.wire.http_server import HeaderList

_completion = msgspec.json.Decoder(WireCompletion)
_embeddings = msgspec.json.Decoder(WireEmbeddings)
_error = msgspec.json.Decoder(WireErrorBody)


class _Function(msgspec.Struct, frozen=True):
    name: str = ""
    arguments: str = ""


class _Call(msgspec.Struct):
    id: str = ""
    function: _Function = _Function()


_call = msgspec.json.Decoder(_Call)


class OpenAIProvider:
    """The OpenAI chat completions and embeddings API (reference of 2026)."""

    wire = openai.WIRE
    signs_each = False

    def sign(self, request: UnsignedRequest, key: str | None) -> HeaderList:
        return [("authorization", f"Bearer {key}")] if key else []

    def encode(self, upstream: str, ask: Ask, stream: bool) -> EncodedRequest:
        same = ask.dialect.wire == self.wire
        fields = ask.fields if same else openai.write_fields(ask.conversation())
        if ask.kind == "embeddings":
            return EncodedRequest("/embeddings", _object(upstream, fields, b"}"))
        # Usage is always asked for: clients that did not ask do not see the extra chunk.
        tail = b',"stream":true,"stream_options":{"include_usage":true}}' if stream else b"}"
        return EncodedRequest("/chat/completions", _object(upstream, fields, tail))

    def facts(self, kind: RouteKind, body: bytes) -> AnswerFacts:
        if kind == "embeddings":
            vectors = _embeddings.decode(body)
            return AnswerFacts(None, True, vectors.usage.value() if vectors.usage else None)
        answer = self._decode(body)
        first = answer.choices[0]
        return AnswerFacts(
            first.finish_reason,
            all(choice.finish_reason == "stop" for choice in answer.choices),
            answer.usage.value() if answer.usage else None,
            first.message.content if first.message else None,
            any(choice.message and choice.message.tool_calls for choice in answer.choices),
        )

    def read(self, body: bytes) -> Completion:
        answer = self._decode(body)
        choices = []
        for choice in answer.choices:
            parts: list[MessagePart] = []
            if (message := choice.message) is not None:
                parts += [TextPart(message.content)] if message.content else []
                parts += [RefusalPart(message.refusal)] if message.refusal else []
                for raw in message.tool_calls or ():
                    call = _call.decode(raw)
                    parts.append(ToolCallPart(call.id, call.function.name, call.function.arguments))
            choices.append(Choice(tuple(parts), choice.finish_reason))
        usage = answer.usage.value() if answer.usage else None
        return Completion(answer.id or "", tuple(choices), usage)

    def _decode(self, body: bytes) -> WireCompletion:
        answer = _completion.decode(body)
        if not answer.choices:
            raise ValueError("the answer has no choices")
        return answer

    def events(self) -> ChunkReader:
        return ChunkReader()

    def reason(self, body: bytes) -> tuple[str | None, str | None]:
        try:
            error = _error.decode(body).error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None, None
        if isinstance(error, WireError):
            code = error.code if isinstance(error.code, str) else error.type
            return code, error.message
        return None, error


def _object(upstream: str, fields: Fields, tail: bytes) -> bytes:
    parts = [b'{"model":', msgspec.json.encode(upstream)]
    for name, value in fields.items():
        parts += (b",", msgspec.json.encode(name), b":", value)
    parts.append(tail)
    return b"".join(parts)
