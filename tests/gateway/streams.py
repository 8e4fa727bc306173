"""Providers as a client of the OpenAI chat API meets them: its bytes, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tests.gateway.calls import CHAT
from tidegate.gateway.neutral import AnswerFacts, Transcript
from tidegate.gateway.ports import Ask, EncodedRequest, Provider


class Heard:
    """One stream: ``feed`` gives the client's bytes, ``said`` what has come so far."""

    def __init__(self, provider: Provider, *, shows_usage: bool = False, model: str = "m") -> None:
        self.said = Transcript()
        self._reader = provider.events()
        self._same = provider.wire == CHAT.wire
        self._writer = CHAT.writer(model, shows_usage)
        self._shows_usage = shows_usage
        self._model = model

    def feed(self, event: bytes) -> bytes:
        events = self._reader.feed(event)
        self.said.add(events)
        if self._same:
            return event if CHAT.passes(events, self._shows_usage) else b""
        return self._writer.write(events)

    def assembled(self) -> bytes:
        """What has come so far as one JSON answer."""
        return CHAT.write(self.said.completion(), self._model)


def encoded(
    provider: Provider, upstream: str, fields: Mapping[str, bytes], stream: bool = False
) -> EncodedRequest:
    """The provider's form of a chat request with these JSON fields."""
    count = fields.get("n", b"1")
    ask = Ask(CHAT, dict(fields), stream, choices=int(count) if count.isdigit() else 1)
    return provider.encode(upstream, ask, stream)


def whole(provider: Provider, body: bytes) -> tuple[bytes, AnswerFacts]:
    """A whole answer as the client gets it, and what the gateway reads of it."""
    if provider.wire == CHAT.wire:
        return body, provider.facts("chat", body)
    said = provider.read(body)
    return CHAT.write(said, "m"), AnswerFacts.of(said)


def decoded(body: bytes) -> Any:
    return msgspec.json.decode(body)
