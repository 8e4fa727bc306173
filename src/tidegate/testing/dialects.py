"""How a provider's API writes answers, streams and errors."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec

from tidegate.testing.answers import ToolCall
from tidegate.testing.beats import Beats

STATUS_CODES: dict[int, tuple[str, str, str]] = {
    400: ("invalid_request_error", "invalid_request", "The request is not valid."),
    401: ("authentication_error", "invalid_api_key", "Incorrect API key provided."),
    403: ("permission_error", "permission_denied", "This key may not use this model."),
    404: ("not_found_error", "model_not_found", "The model does not exist."),
    413: ("request_too_large", "request_too_large", "The request body is too large."),
    429: ("rate_limit_error", "rate_limit_exceeded", "Rate limit reached for requests."),
    500: ("api_error", "server_error", "The server had an error while processing your request."),
    502: ("api_error", "bad_gateway", "Bad gateway."),
    503: ("overloaded_error", "overloaded", "The engine is currently overloaded."),
    504: ("api_error", "gateway_timeout", "The upstream did not answer in time."),
    529: ("overloaded_error", "overloaded", "Overloaded."),
}
"""HTTP status to the provider's usual (type, code, message)."""


class ModelReply(msgspec.Struct, frozen=True, kw_only=True):
    """One answer before it is written: what is said, and when each piece is sent."""

    request: dict[str, Any]
    """The decoded request body."""
    id: str
    model: str
    created: int
    answer: str | ToolCall
    """Only the tool call's name and arguments, or the text after the token limit."""
    tokens: list[str]
    """The text, or the arguments' text, in pieces as they are streamed."""
    finish: Literal["stop", "length", "tool_calls", "content_filter"]
    prompt_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    waits: list[float]
    """Seconds before each token; the first is the first-token time."""
    usage: Literal["own", "with_choices", "none"] = "own"

    @property
    def completion_tokens(self) -> int:
        return len(self.tokens) + self.reasoning_tokens


class ServerDialect(Protocol):
    """One provider's way of writing."""

    def whole(self, reply: ModelReply) -> Beats: ...

    def stream(self, reply: ModelReply) -> Beats: ...

    def error_body(self, status: int, kind: str, code: str, message: str) -> bytes: ...

    def error_event(self, body: bytes) -> bytes:
        """``body`` as a framed event inside a stream."""
        ...

    def event(self, text: str) -> bytes:
        """``text`` as the framed data of an event, right or wrong."""
        ...
