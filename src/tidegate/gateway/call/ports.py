"""What a provider adapter implements; register one under the entry-point group
``tidegate.providers`` and name it in ``models.<name>.provider``."""

from __future__ import annotations

from typing import Protocol

import msgspec

from tidegate.base.money import Usage


class Encoded(msgspec.Struct, frozen=True):
    """A request for the provider: path below the base URL, and its JSON body."""

    path: str
    body: bytes


class Parsed(msgspec.Struct, frozen=True):
    """A whole answer, read. ``body`` is what the client gets: JSON in the OpenAI shape."""

    body: bytes
    finish: str | None
    complete: bool
    usage: Usage | None
    content: str | None = None
    tool_calls: bool = False


class UnreadableEvent(Exception):
    """One event that is not what the provider's API sends: what it would have said is unknown."""


class EventReader(Protocol):
    """Reads the events of one stream in order and gives what the client gets for each.

    After each ``feed``: ``alive`` says whether the model has said anything, to itself at least;
    ``content`` whether something a user sees (text, a tool call, a refusal, the finish) has come;
    ``done`` that the stream has ended properly. ``pieces`` counts the events with something the
    model wrote, thoughts included, and ``chars`` its characters.
    """

    alive: bool
    content: bool
    pieces: int
    chars: int
    done: bool
    finish: str | None
    usage: Usage | None
    tool_calls: bool

    def feed(self, event: bytes) -> bytes:
        """Event bytes for the client, b"" to hold the event back. Raises UpstreamFault, and
        UnreadableEvent for an event that may be passed over."""
        ...

    def text(self) -> str:
        """The text of the first choice so far."""
        ...

    def assembled(self) -> bytes:
        """What has come so far as one JSON answer, for the ledger."""
        ...


class Provider(Protocol):
    """One wire format. Stateless: one instance serves all requests of a worker."""

    def headers(self, key: str | None) -> list[tuple[str, str]]:
        """Headers of every request, the credential among them."""
        ...

    def encode_chat(self, upstream: str, fields: dict[str, bytes], stream: bool) -> Encoded: ...

    def encode_embeddings(self, upstream: str, fields: dict[str, bytes]) -> Encoded: ...

    def parse_chat(self, body: bytes, upstream: str) -> Parsed:
        """Raises ValueError when the body is not an answer."""
        ...

    def parse_embeddings(self, body: bytes) -> Parsed:
        """Raises ValueError when the body is not an answer."""
        ...

    def events(self, upstream: str, wants_usage: bool) -> EventReader: ...

    def reason(self, body: bytes) -> tuple[str | None, str | None]:
        """(code, message) of an error body; None where it says nothing."""
        ...
