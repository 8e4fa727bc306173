"""Scripted failures as frozen values; ``rewrites`` plays them."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec


class Refuse(msgspec.Struct, frozen=True, kw_only=True):
    """Answer with an error status in the dialect's own shape, or with ``body`` as it is."""

    name: ClassVar[str] = "status"
    status: int = 429
    code: str | None = None
    """The provider's error code; None: the usual one for the status."""
    message: str | None = None
    retry_after: float | None = None
    """Seconds, sent as a Retry-After header."""
    headers: tuple[tuple[str, str], ...] = ()
    body: str | None = None

    @classmethod
    def context_length(cls) -> Refuse:
        return cls(status=400, code="context_length_exceeded", message=_TOO_LONG)

    @classmethod
    def content_policy(cls) -> Refuse:
        return cls(status=400, code="content_policy_violation", message=_NOT_ALLOWED)


_TOO_LONG = "This model's maximum context length is 4096 tokens. Please reduce the messages."
_NOT_ALLOWED = "Your request was rejected as a result of our safety system."


class Reset(msgspec.Struct, frozen=True):
    """Break the TCP connection (RST) before any header."""

    name: ClassVar[str] = "reset"


class Hang(msgspec.Struct, frozen=True):
    """Take the request and never answer."""

    name: ClassVar[str] = "hang"


class Silence(msgspec.Struct, frozen=True):
    """Send the headers, then nothing."""

    name: ClassVar[str] = "silence"


class SlowFirstToken(msgspec.Struct, frozen=True):
    """Wait ``seconds`` more before the first token."""

    name: ClassVar[str] = "slow_first_token"
    seconds: float


class Cut(msgspec.Struct, frozen=True):
    """End after ``after`` tokens without a finish. ``how``: ``close`` the connection in order,
    ``reset`` it, or end the HTTP body properly (``clean``), which looks most like success."""

    name: ClassVar[str] = "cut"
    after: int = 3
    how: Literal["close", "reset", "clean"] = "close"


class Stall(msgspec.Struct, frozen=True):
    """Send ``after`` tokens, then nothing more on an open connection."""

    name: ClassVar[str] = "stall"
    after: int = 3


class InvalidEvent(msgspec.Struct, frozen=True):
    """An event that is not JSON after ``after`` tokens; the stream goes on."""

    name: ClassVar[str] = "invalid_event"
    after: int = 3


class MissingDone(msgspec.Struct, frozen=True):
    """The stream ends properly but for the dialect's own ending."""

    name: ClassVar[str] = "missing_done"


class ErrorEvent(msgspec.Struct, frozen=True):
    """An error object inside an answer with status 200, after ``after`` tokens; then the end."""

    name: ClassVar[str] = "error_event"
    after: int = 3
    message: str = "The server had an error while processing your request."


class Drip(msgspec.Struct, frozen=True):
    """The bytes after the headers come ``size`` at a time, ``seconds`` apart."""

    name: ClassVar[str] = "drip"
    seconds: float = 0.02
    size: int = 7


class NoUsage(msgspec.Struct, frozen=True):
    """No usage at all: neither in the body nor as a chunk, although it was asked for."""

    name: ClassVar[str] = "no_usage"


class UsageWithChoices(msgspec.Struct, frozen=True):
    """Usage rides on the chunk with the finish reason instead of on one of its own."""

    name: ClassVar[str] = "usage_with_choices"


Fault = (
    Refuse
    | Reset
    | Hang
    | Silence
    | SlowFirstToken
    | Cut
    | Stall
    | InvalidEvent
    | MissingDone
    | ErrorEvent
    | Drip
    | NoUsage
    | UsageWithChoices
)
