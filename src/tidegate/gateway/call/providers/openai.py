"""Any OpenAI-compatible endpoint, local servers among them: bytes pass through unchanged."""

from __future__ import annotations

from typing import Any

import msgspec

from tidegate.base.money import Usage
from tidegate.gateway.call.ports import Encoded, Parsed, UnreadableEvent
from tidegate.gateway.wire.openai import (
    ChatAnswer,
    Chunk,
    EmbeddingsAnswer,
    ErrorBody,
    ToolCallDelta,
    WireError,
    assemble,
)
from tidegate.gateway.wire.sse import data_of
from tidegate.gateway.wire.upstream import UpstreamFault

_chat = msgspec.json.Decoder(ChatAnswer)
_embeddings = msgspec.json.Decoder(EmbeddingsAnswer)
_chunk = msgspec.json.Decoder(Chunk)
_error = msgspec.json.Decoder(ErrorBody)


class OpenAIProvider:
    """The OpenAI chat completions and embeddings API (reference of 2026)."""

    def headers(self, key: str | None) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {key}")] if key else []

    def encode_chat(self, upstream: str, fields: dict[str, bytes], stream: bool) -> Encoded:
        # Usage is always asked for: clients that did not ask do not see the extra chunk.
        tail = b',"stream":true,"stream_options":{"include_usage":true}}' if stream else b"}"
        return Encoded("/chat/completions", _object(upstream, fields, tail))

    def encode_embeddings(self, upstream: str, fields: dict[str, bytes]) -> Encoded:
        return Encoded("/embeddings", _object(upstream, fields, b"}"))

    def parse_chat(self, body: bytes, upstream: str) -> Parsed:
        answer = _chat.decode(body)
        if not answer.choices:
            raise ValueError("the answer has no choices")
        first = answer.choices[0]
        return Parsed(
            body,
            first.finish_reason,
            all(choice.finish_reason == "stop" for choice in answer.choices),
            answer.usage.value() if answer.usage else None,
            first.message.content if first.message else None,
            any(choice.message and choice.message.tool_calls for choice in answer.choices),
        )

    def parse_embeddings(self, body: bytes) -> Parsed:
        answer = _embeddings.decode(body)
        return Parsed(body, None, True, answer.usage.value() if answer.usage else None)

    def events(self, upstream: str, wants_usage: bool) -> OpenAIEvents:
        return OpenAIEvents(upstream, wants_usage)

    def reason(self, body: bytes) -> tuple[str | None, str | None]:
        try:
            error = _error.decode(body).error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None, None
        if isinstance(error, WireError):
            code = error.code if isinstance(error.code, str) else error.type
            return code, error.message
        return None, error


class OpenAIEvents:
    """Reads chat.completion.chunk events; gives each to the client as it came."""

    def __init__(self, upstream: str, wants_usage: bool) -> None:
        self._upstream = upstream
        self._wants_usage = wants_usage
        self._parts: list[str] = []
        self._calls: dict[int, list[str]] = {}
        self._id = ""
        self.alive = False
        self.content = False
        self.pieces = self.chars = 0
        self.done = False
        self.finish: str | None = None
        self.usage: Usage | None = None
        self.tool_calls = False
        self._last = self._finished = 0
        self._reason: str | None = None

    def feed(self, event: bytes) -> bytes:
        data = data_of(event)
        if data is None:
            return event
        if data == b"[DONE]":
            self.done = True
            return b""
        if not data:  # says nothing, and clients that decode it fail
            return b""
        try:
            chunk = _chunk.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UnreadableEvent(f"an event is not a chunk: {error}") from None
        if chunk.error is not None:
            raise _told(chunk.error)
        if event.startswith(b"event: error"):
            raise _told("no reason given")
        if not self._id and chunk.id is not None:
            self._id = chunk.id
        if chunk.usage is not None:
            self.usage = chunk.usage.value() or self.usage
            if not chunk.choices and not self._wants_usage:
                return b""
        for choice in chunk.choices:
            if choice.index > self._last:
                self._last = choice.index
            delta = choice.delta
            if delta is not None:
                text = delta.content or delta.refusal
                if text:
                    self.content = self.alive = True
                    self.pieces += 1
                    self.chars += len(text)
                    if choice.index == 0 and delta.content:
                        self._parts.append(delta.content)
                elif delta.reasoning_content or delta.reasoning:
                    self._think(delta.reasoning_content or delta.reasoning)
                if delta.tool_calls:
                    self.content = self.alive = self.tool_calls = True
                    self.pieces += 1
                    self._collect(delta.tool_calls, choice.index == 0)
            if choice.finish_reason:  # some endpoints send "" for none yet
                self._end(choice.finish_reason)
        return event

    def _end(self, reason: str) -> None:
        """The stream has finished when every choice has; one that was cut speaks for all."""
        self.content = self.alive = True
        self._finished += 1
        if self._reason in (None, "stop"):
            self._reason = reason
        if self._finished > self._last:
            self.finish = self._reason

    def _think(self, thought: Any) -> None:
        self.alive = True
        self.pieces += 1
        self.chars += len(thought) if isinstance(thought, str) else 1

    def _collect(self, deltas: list[ToolCallDelta], first: bool) -> None:
        """Put together the calls of the first choice; count those of all."""
        for delta in deltas:
            if delta.function is not None:
                self.chars += len(delta.function.name or "") + len(delta.function.arguments or "")
            if not first:
                continue
            call = self._calls.setdefault(delta.index, [delta.id or "", "", ""])
            if delta.function is not None:
                call[1] += delta.function.name or ""
                call[2] += delta.function.arguments or ""

    def text(self) -> str:
        return "".join(self._parts)

    def assembled(self) -> bytes:
        return assemble(
            self._id,
            self._upstream,
            self.text(),
            [call for _, call in sorted(self._calls.items())],
            self.finish,
            self.usage,
        )


def _told(error: WireError | str) -> UpstreamFault:
    """An error that came inside a stream."""
    code = message = None
    if isinstance(error, WireError):
        code, message = error.code if isinstance(error.code, str) else error.type, error.message
    else:
        message = error
    return UpstreamFault("upstream_cut", f"the upstream sent an error event: {message}", code)


def _object(upstream: str, fields: dict[str, bytes], tail: bytes) -> bytes:
    parts = [b'{"model":', msgspec.json.encode(upstream)]
    for name, value in fields.items():
        parts += (b",", msgspec.json.encode(name), b":", value)
    parts.append(tail)
    return b"".join(parts)
