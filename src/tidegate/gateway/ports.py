"""What a client dialect and a provider adapter implement, and the request that passes between them.

Register a dialect under the entry-point group ``tidegate.dialects``, a provider under
``tidegate.providers`` (then ``models.<name>.provider`` can name it). Instances hold no state: one
serves all requests of a worker. Streams have a reader and a writer each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from tidegate.base import RequestError
from tidegate.gateway.neutral import (
    AnswerFacts,
    Completion,
    Conversation,
    Event,
    OfferedTool,
    OutputFormat,
)
from tidegate.gateway.wire.http_server import HeaderList

RouteKind: TypeAlias = Literal["chat", "embeddings"]
Fields: TypeAlias = dict[str, bytes]
"""Fields of a request in its dialect: name to JSON."""


class Extension(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The request field ``tidegate``: what a route needs and no client API has a word for.

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


NO_EXTENSION = Extension()


class Ask(msgspec.Struct, frozen=True):
    """A request to a model. ``fields`` are in the words of ``dialect``; a provider of the same wire
    format passes them on as they are, any other reads ``conversation()``."""

    dialect: ClientDialect
    fields: Fields
    stream: bool = False
    shows_usage: bool = False
    """Whether the client of a stream asked for its usage."""
    choices: int = 1
    temperature: float | None = None

    @property
    def kind(self) -> RouteKind:
        return self.dialect.kind

    @property
    def prompt(self) -> bytes:
        """JSON of what the model reads: its size is what tokens are estimated from."""
        return self.dialect.prompt(self.fields)

    def with_fields(self, fields: Fields) -> Ask:
        """The same with other fields."""
        # As msgspec.structs.replace does, at a third of its cost: this is on every request's path.
        return Ask(
            self.dialect, fields, self.stream, self.shows_usage, self.choices, self.temperature
        )

    def conversation(self) -> Conversation:
        """The neutral form. Raises Untranslatable and what reading odd shapes raises."""
        return self.dialect.read(self.fields)


class ClientRequest(msgspec.Struct, frozen=True):
    """The body of a client's request, read once."""

    model: str
    ask: Ask
    body_fields: Mapping[str, msgspec.Raw]
    """All top-level fields, the gateway's own among them."""
    extension: Extension = NO_EXTENSION


class EventWriter(Protocol):
    """Writes the events of one stream in a client dialect."""

    def write(self, events: Sequence[Event]) -> bytes: ...


class ClientDialect(Protocol):
    """One client API: reads requests, edits their fields, writes answers, events and errors.

    Functions that edit change the dict that they are given.
    """

    name: str
    kind: RouteKind
    path: str
    """Path of its endpoint: ``/v1/chat/completions``."""
    wire: str
    """Name of the wire format: bytes of a provider that has the same pass unchanged."""
    inert: frozenset[str]
    """Fields that never change an answer."""
    stream_end: bytes
    """What ends a stream that is whole."""

    # -- requests -------------------------------------------------------------------------------

    def parse(self, body: bytes) -> ClientRequest:
        """Raises RequestError 400."""
        ...

    def build(self, asked: Conversation) -> Ask:
        """A request of the gateway's own, for a whole answer."""
        ...

    def read(self, fields: Mapping[str, bytes]) -> Conversation: ...

    def prompt(self, fields: Mapping[str, bytes]) -> bytes: ...

    def prompt_text(self, prompt: bytes) -> tuple[str, int]:
        """Text of ``prompt`` to count tokens of, and tokens that came as numbers already."""
        ...

    def put_prompt(self, fields: Fields, role: str, text: str) -> None:
        """Set a message before the others; there need not be any."""
        ...

    def require_prompt(self, fields: Fields) -> None:
        """Raises RequestError ``messages_missing``."""
        ...

    def put_tools(self, fields: Fields, tools: Sequence[OfferedTool]) -> None:
        """Offer ``tools``, unless the request offers its own."""
        ...

    def put_format(self, fields: Fields, form: OutputFormat) -> None:
        """Ask for ``form``, unless the request asks for one."""
        ...

    def drop_tools(self, fields: Fields, killed: frozenset[str]) -> None:
        """Raises RequestError ``tool_killed`` when the request insists on one of them."""
        ...

    def asked_output(self, fields: Mapping[str, bytes]) -> int | None:
        """Tokens of an answer that the model would be asked for; None: as many as it likes."""
        ...

    def worst_output(self, fields: Mapping[str, bytes]) -> int:
        """The largest number of output tokens that any field asks for; -1 for none."""
        ...

    def cap_output(self, fields: Fields, tokens: int) -> None: ...

    def tools_size(self, fields: Mapping[str, bytes]) -> int:
        """Bytes of the tools that are offered: they are billed as prompt."""
        ...

    def needs(self, fields: Mapping[str, bytes]) -> frozenset[str]:
        """What a model must be able to do: of ``tools``, ``schema``, ``images``."""
        ...

    def user(self, fields: Mapping[str, bytes]) -> str | None:
        """Who asks, where the API has a field for it."""
        ...

    # -- answers --------------------------------------------------------------------------------

    def write(self, said: Completion, model: str) -> bytes: ...

    def writer(self, model: str, shows_usage: bool) -> EventWriter: ...

    def passes(self, events: Sequence[Event], shows_usage: bool) -> bool:
        """Whether the client gets the server-sent event, of its own wire format, that said
        ``events``."""
        ...

    def join(self, events: bytes, model: str) -> bytes:
        """The events of a whole stream as one JSON answer, for the ledger."""
        ...

    def error_body(self, error: RequestError) -> bytes: ...

    def error_event(self, error: RequestError) -> bytes:
        """The same as the last event of a stream that broke off."""
        ...


class EncodedRequest(msgspec.Struct, frozen=True):
    """A request for the provider: path below the base URL, and its JSON body. ``dropped`` names
    fields without a counterpart that do not change an answer, so that they were left out."""

    path: str
    body: bytes
    dropped: tuple[str, ...] = ()


class UnsignedRequest(msgspec.Struct, frozen=True):
    """A request to be signed: ``path`` as it is on the request line, ``at`` seconds since the
    epoch."""

    method: str
    authority: str
    path: str
    body: bytes
    at: float


class UnreadableEvent(Exception):
    """One event that is not what the provider's API sends: what it would have said is unknown."""


class EventReader(Protocol):
    """Reads the server-sent events of one stream in order."""

    def feed(self, event: bytes) -> Sequence[Event]:
        """What one event says. Raises UpstreamFault for an error that it tells of, and
        UnreadableEvent for an event that may be passed over."""
        ...


class Provider(Protocol):
    """One API that models are served by."""

    wire: str
    signs_each: bool
    """Whether the signature depends on the request or the time. Else ``sign`` is asked once for
    each key, and its headers are sent with every request."""

    def sign(self, request: UnsignedRequest, key: str | None) -> HeaderList:
        """Headers that carry or prove the credential: a key, a short-lived token, a signature over
        the request (AWS SigV4)."""
        ...

    def encode(self, upstream: str, ask: Ask, stream: bool) -> EncodedRequest:
        """Raises RequestError for what has no counterpart, and what reading odd shapes raises."""
        ...

    def facts(self, kind: RouteKind, body: bytes) -> AnswerFacts:
        """Read off an answer that is passed on. Raises ValueError when the body is no answer."""
        ...

    def read(self, body: bytes) -> Completion:
        """Raises ValueError when the body is no answer."""
        ...

    def events(self) -> EventReader: ...

    def reason(self, body: bytes) -> tuple[str | None, str | None]:
        """(code, message) of an error body; None where it says nothing."""
        ...
