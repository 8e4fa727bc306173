"""The vendor-neutral language between the two rings: what is asked, streamed and answered.

Client dialects (``dialects``) and provider adapters (``providers``) translate to and from these
values; a stage that needs the meaning of a request reads them and no vendor's JSON. Where client
and provider speak the same wire format nothing is translated: bytes pass, and the values here are
only read off them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec

from tidegate.base import Usage

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]

Finish: TypeAlias = str
"""Why a choice ended: ``stop``, ``length``, ``tool_calls``, ``content_filter``, or a provider's own
word where it has no counterpart."""

ToolChoice: TypeAlias = Literal["auto", "none", "required"]


# -- what is asked -----------------------------------------------------------------------------


class TextPart(msgspec.Struct, frozen=True):
    text: str
    cache: str | None = None
    """Mark of the provider's prompt cache: the prefix up to here is kept, for so long (``5m``)."""


class ImagePart(msgspec.Struct, frozen=True):
    """An image by ``url``, or by ``media_type`` and base64 ``data``."""

    url: str | None = None
    media_type: str | None = None
    data: str | None = None
    detail: str | None = None
    cache: str | None = None


class AudioPart(msgspec.Struct, frozen=True):
    """Base64 audio in the format ``encoding`` (``wav``, ``mp3``)."""

    data: str
    encoding: str


class FilePart(msgspec.Struct, frozen=True):
    """A document: by the provider's file id, or by name and base64 data."""

    file_id: str | None = None
    name: str | None = None
    data: str | None = None


class ThoughtPart(msgspec.Struct, frozen=True):
    """Reasoning of the model, with the provider's signature where it signs it."""

    text: str
    signature: str | None = None


class RefusalPart(msgspec.Struct, frozen=True):
    text: str


class ToolCallPart(msgspec.Struct, frozen=True):
    """A call that the model asks for. ``arguments`` is the JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


class ToolResultPart(msgspec.Struct, frozen=True):
    """What the app's tool returned to the call ``call_id``."""

    call_id: str
    text: str


MessagePart: TypeAlias = (
    TextPart
    | ImagePart
    | AudioPart
    | FilePart
    | ThoughtPart
    | RefusalPart
    | ToolCallPart
    | ToolResultPart
)


class Message(msgspec.Struct, frozen=True):
    role: Role
    parts: tuple[MessagePart, ...]
    name: str | None = None


class OfferedTool(msgspec.Struct, frozen=True):
    """A tool that the model may call. ``parameters`` is a JSON Schema; None takes anything."""

    name: str
    description: str | None
    parameters: Mapping[str, object] | None
    strict: bool | None = None


class OutputFormat(msgspec.Struct, frozen=True):
    """The JSON that an answer must be: any object where ``schema`` is None."""

    name: str
    schema: Mapping[str, object] | None = None
    strict: bool | None = None


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How tokens are drawn; None leaves it to the model."""

    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: tuple[str, ...] = ()


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """A chat request, whole.

    ``extras`` is the side pocket: fields of the client's dialect that have no neutral word, each as
    JSON. A provider of another format refuses them by name, or drops them and says so.
    """

    messages: tuple[Message, ...]
    tools: tuple[OfferedTool, ...] = ()
    tool_choice: ToolChoice | str | None = None
    """A mode, or ``tool:NAME`` where the model must call that one."""
    parallel_tools: bool | None = None
    format: OutputFormat | None = None
    sampling: Sampling = Sampling()
    output_tokens: int | None = None
    choices: int = 1
    extras: Mapping[str, bytes] = {}


class Untranslatable(ValueError):
    """A part of a request that the other format cannot express. ``param`` names its field."""

    def __init__(self, param: str, what: str) -> None:
        super().__init__(f"it has no counterpart of {what}")
        self.param = param


# -- what is streamed --------------------------------------------------------------------------


class MessageStart(msgspec.Struct, frozen=True, gc=False):
    """The provider's id of the answer."""

    id: str | None


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    choice: int
    text: str


class RefusalDelta(msgspec.Struct, frozen=True, gc=False):
    choice: int
    text: str


class ThoughtDelta(msgspec.Struct, frozen=True, gc=False):
    """``size`` is its length in characters where the provider does not show the text."""

    choice: int
    text: str
    size: int


class ToolCallDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of one tool call. ``id`` and ``name`` come with its first piece."""

    choice: int
    index: int
    id: str | None
    name: str | None
    arguments: str


class ChoiceEnd(msgspec.Struct, frozen=True, gc=False):
    choice: int
    finish: Finish


class UsageReport(msgspec.Struct, frozen=True):
    """What the provider bills. ``alone`` means that the event says nothing else, so that it can be
    withheld from a client that did not ask for it; ``usage`` is None where it says nothing."""

    usage: Usage | None
    alone: bool = False


class StreamEnd(msgspec.Struct, frozen=True, gc=False):
    """The provider's own end marker."""


class EmptyEvent(msgspec.Struct, frozen=True, gc=False):
    """An event without data, which clients that decode every event fail on."""


Event: TypeAlias = (
    MessageStart
    | TextDelta
    | RefusalDelta
    | ThoughtDelta
    | ToolCallDelta
    | ChoiceEnd
    | UsageReport
    | StreamEnd
    | EmptyEvent
)

STREAM_END = StreamEnd()
EMPTY_EVENT = EmptyEvent()


# -- what is answered --------------------------------------------------------------------------


class Choice(msgspec.Struct, frozen=True):
    """One of the answers to a request."""

    parts: tuple[MessagePart, ...] = ()
    finish: Finish | None = None

    @property
    def text(self) -> str | None:
        """Its text; None when it has none, as a request for a tool."""
        return "".join(p.text for p in self.parts if isinstance(p, TextPart)) or None

    @property
    def tool_calls(self) -> tuple[ToolCallPart, ...]:
        return tuple(p for p in self.parts if isinstance(p, ToolCallPart))


class Completion(msgspec.Struct, frozen=True):
    """A whole answer of a model. ``choices`` is empty for embeddings."""

    id: str
    choices: tuple[Choice, ...]
    usage: Usage | None

    @property
    def finish(self) -> Finish | None:
        """Of all choices: one that was cut or filtered speaks for all."""
        ends = [choice.finish for choice in self.choices]
        return next((end for end in ends if end != "stop"), "stop") if ends else None

    @property
    def complete(self) -> bool:
        """Whether the model ended every choice by itself."""
        return all(choice.finish == "stop" for choice in self.choices)


class AnswerFacts(msgspec.Struct, frozen=True):
    """What the gateway itself needs of a whole answer whose bytes it passes on."""

    finish: Finish | None
    complete: bool
    usage: Usage | None
    text: str | None = None
    """Of the first choice."""
    tool_calls: bool = False

    @classmethod
    def of(cls, said: Completion) -> AnswerFacts:
        return cls(
            said.finish,
            said.complete,
            said.usage,
            said.choices[0].text if said.choices else None,
            any(choice.tool_calls for choice in said.choices),
        )


class Transcript:
    """What one stream has said so far, put together from its events.

    ``alive``: the model has begun, if only to think. ``content``: something that a user sees has
    come (text, a tool call, a refusal, a finish). ``pieces`` counts the events that carried
    something the model wrote, ``chars`` its characters, thoughts and tool calls of all choices
    included. Text and tool calls are kept of the first choice only.
    """

    __slots__ = (
        "_calls",
        "_ended",
        "_last_choice",
        "_reason",
        "_texts",
        "alive",
        "chars",
        "content",
        "done",
        "finish",
        "id",
        "pieces",
        "tool_calls",
        "usage",
    )

    def __init__(self) -> None:
        self.id = ""
        self.alive = self.content = self.done = self.tool_calls = False
        self.pieces = self.chars = 0
        self.finish: Finish | None = None
        self.usage: Usage | None = None
        self._texts: list[str] = []
        self._calls: dict[int, list[str]] = {}
        self._last_choice = self._ended = 0
        self._reason: Finish | None = None

    def add(self, events: Sequence[Event]) -> None:
        """Take in the neutral events of one server-sent event."""
        called = -1
        for event in events:
            if isinstance(event, TextDelta):
                self._write(event.choice, len(event.text))
                if event.choice == 0:
                    self._texts.append(event.text)
            elif isinstance(event, ToolCallDelta):
                # Deltas of several tool calls in one event of a choice are one piece: providers
                # bill a token an event, and ``lost_nothing`` compares pieces with tokens.
                self.pieces += event.choice != called
                called = event.choice
                self._call(event)
            else:
                self._add(event)

    def _add(self, event: Event) -> None:
        match event:
            case RefusalDelta():
                self._write(event.choice, len(event.text))
            case ThoughtDelta():
                self.alive = True
                self.pieces += 1
                self.chars += event.size
                self._see(event.choice)
            case ChoiceEnd():
                self._end(event)
            case UsageReport():
                self.usage = event.usage or self.usage
            case MessageStart():
                self.id = self.id or event.id or ""
            case StreamEnd():
                self.done = True

    def _see(self, choice: int) -> None:
        if choice > self._last_choice:
            self._last_choice = choice

    def _write(self, choice: int, size: int) -> None:
        self.content = self.alive = True
        self.pieces += 1
        self.chars += size
        self._see(choice)

    def _call(self, event: ToolCallDelta) -> None:
        self.content = self.alive = self.tool_calls = True
        self.chars += len(event.name or "") + len(event.arguments)
        self._see(event.choice)
        if event.choice:
            return
        call = self._calls.setdefault(event.index, [event.id or "", "", ""])
        call[1] += event.name or ""
        call[2] += event.arguments

    def _end(self, event: ChoiceEnd) -> None:
        """The stream has finished when every choice has; one that was cut speaks for all."""
        self.content = self.alive = True
        self._see(event.choice)
        self._ended += 1
        if self._reason in (None, "stop"):
            self._reason = event.finish
        if self._ended > self._last_choice:
            self.finish = self._reason

    def text(self) -> str:
        """The text of the first choice so far."""
        return "".join(self._texts)

    def text_since(self, place: int) -> tuple[str, int]:
        """What the first choice said since ``place``, and the place to ask from next."""
        return "".join(self._texts[place:]), len(self._texts)

    def completion(self) -> Completion:
        """What has come so far as an answer of one choice, the first."""
        text = self.text()
        parts: list[MessagePart] = [TextPart(text)] if text else []
        parts += (ToolCallPart(*call) for _, call in sorted(self._calls.items()))
        return Completion(self.id, (Choice(tuple(parts), self.finish),), self.usage)
