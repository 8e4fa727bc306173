"""Scripted failures as frozen values; ``rewrites`` plays them."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from tidegate.testing.timings import Timing


class Refuse(msgspec.Struct, frozen=True, kw_only=True):
    """Answer with an error status in the dialect's own shape, or with ``body`` as it is."""

    name: ClassVar[str] = "status"
    status: int = 429
    code: str | None = None
    """The provider's error code; None: the usual one for the status."""
    message: str | None = None
    retry_after: float | None = None
    """Seconds, sent in the header that ``retry_form`` says."""
    retry_form: Literal["seconds", "date", "milliseconds"] = "seconds"
    """``Retry-After`` in seconds or as a date, or ``retry-after-ms``."""
    headers: tuple[tuple[str, str], ...] = ()
    body: str | None = None

    @classmethod
    def context_length(cls) -> Refuse:
        return cls(status=400, code="context_length_exceeded", message=_TOO_LONG)

    @classmethod
    def content_policy(cls) -> Refuse:
        return cls(status=400, code="content_policy_violation", message=_NOT_ALLOWED)

    @classmethod
    def key_revoked(cls) -> Refuse:
        return cls(status=401, code="invalid_api_key", message=_REVOKED)

    @classmethod
    def key_forbidden(cls) -> Refuse:
        return cls(status=403)

    @classmethod
    def quota(cls) -> Refuse:
        """A 429 that waiting does not mend."""
        return cls(status=429, code="insufficient_quota", message=_NO_QUOTA)

    @classmethod
    def prefill(cls) -> Refuse:
        """For a conversation that ends with the assistant's words: see ``has_prefill``."""
        return cls(status=400, code="prefill_unsupported", message=_NO_PREFILL)

    @classmethod
    def loading(cls) -> Refuse:
        """What a server says that still loads its model: a cold start."""
        return cls(status=503, code="unavailable_error", message="Loading model")


_TOO_LONG = "This model's maximum context length is 4096 tokens. Please reduce the messages."
_REVOKED = "Incorrect API key provided: the key was revoked."
_NO_QUOTA = "You exceeded your current quota, please check your plan and billing details."
_NO_PREFILL = "This model does not support assistant message prefill."
_NOT_ALLOWED = "Your request was rejected as a result of our safety system."


class Reset(msgspec.Struct, frozen=True):
    """Break the TCP connection (RST) before any header."""

    name: ClassVar[str] = "reset"


class Hang(msgspec.Struct, frozen=True):
    """Take the request and never answer; close the connection after ``seconds``, if given."""

    name: ClassVar[str] = "hang"
    seconds: float | None = None


class Hold(msgspec.Struct, frozen=True):
    """Take the request and answer as usual once ``ModelServer.release`` is called: a slow model
    whose end the test decides instead of a clock."""

    name: ClassVar[str] = "hold"


class Silence(msgspec.Struct, frozen=True):
    """Send the headers, then nothing."""

    name: ClassVar[str] = "silence"


class SlowFirstToken(msgspec.Struct, frozen=True):
    """Headers at once, ``seconds`` more before the first token; a Timing draws them."""

    name: ClassVar[str] = "slow_first_token"
    seconds: float | Timing


class SlowTokens(msgspec.Struct, frozen=True):
    """A token every ``seconds``: each silence is short, the answer takes forever."""

    name: ClassVar[str] = "slow_tokens"
    seconds: float = 1.0


class Cut(msgspec.Struct, frozen=True):
    """End after ``after`` tokens without a finish. ``how``: ``close`` the connection in order,
    ``reset`` it, or end the HTTP body properly (``clean``), which looks most like success."""

    name: ClassVar[str] = "cut"
    after: int = 3
    how: Literal["close", "reset", "clean"] = "close"


class Stall(msgspec.Struct, frozen=True):
    """Send ``after`` tokens, then nothing more on an open connection; after ``seconds``, if
    given, close it or ``resume`` the answer."""

    name: ClassVar[str] = "stall"
    after: int = 3
    seconds: float | None = None
    then: Literal["close", "resume"] = "close"


class InvalidEvent(msgspec.Struct, frozen=True):
    """An event that is not JSON after ``after`` tokens; the stream goes on."""

    name: ClassVar[str] = "invalid_event"
    after: int = 3


class DuplicateEvent(msgspec.Struct, frozen=True):
    """The event of token ``after`` (counted from 0) comes twice."""

    name: ClassVar[str] = "duplicate"
    after: int = 3


class BadBody(msgspec.Struct, frozen=True):
    """A 200 that holds no answer. ``how``: ``empty``; ``truncated``, JSON that ends in the middle
    in an HTTP body that does not; ``html``, a page of something in between."""

    name: ClassVar[str] = "bad_body"
    how: Literal["empty", "truncated", "html"] = "empty"


class MissingField(msgspec.Struct, frozen=True):
    """Every member called ``field`` is left out, wherever it stands."""

    name: ClassVar[str] = "missing_field"
    field: str = "choices"


class Mutate(msgspec.Struct, frozen=True):
    """Change an answer that is JSON, or a tool's arguments: ``drop`` or ``rename`` its
    member whose name comes first, ``retype`` its value, or ``break`` the JSON."""

    name: ClassVar[str] = "mutate"
    how: Literal["drop", "rename", "retype", "break"] = "drop"


class Filtered(msgspec.Struct, frozen=True):
    """The provider's filter ends the answer after ``after`` tokens, with its finish reason."""

    name: ClassVar[str] = "filtered"
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
    | Hold
    | Silence
    | SlowFirstToken
    | SlowTokens
    | Cut
    | Stall
    | InvalidEvent
    | DuplicateEvent
    | BadBody
    | MissingField
    | Mutate
    | Filtered
    | MissingDone
    | ErrorEvent
    | Drip
    | NoUsage
    | UsageWithChoices
)
