"""Errors as the OpenAI API writes them, with the gateway's code and cure."""

from __future__ import annotations

import msgspec

from tidegate.base import RequestError

_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error"}
_TYPES |= {404: "invalid_request_error", 409: "invalid_request_error"}
_TYPES |= {413: "invalid_request_error", 429: "rate_limit_error"}


def error_body(error: RequestError) -> bytes:
    """``{"error": {message, type, param, code, cure}}``: the OpenAI shape plus the cure."""
    return msgspec.json.encode(
        {
            "error": {
                "message": f"{error.message} ({error.cure})",
                "type": _TYPES.get(error.status, "api_error"),
                "param": error.param,
                "code": error.code,
                "cure": error.cure,
            }
        }
    )


def error_event(error: RequestError) -> bytes:
    """The same as an in-band event of a stream that had begun."""
    return b"data: " + error_body(error) + b"\n\n"
