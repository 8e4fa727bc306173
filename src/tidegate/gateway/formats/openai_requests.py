"""Reading the body of a request in one of the OpenAI API's formats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from tidegate.base import RequestError

H = TypeVar("H")
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])

_CHECKED = frozenset(("model", "tidegate", "messages", "input", "stream", "stream_options"))
_CHECKED |= {"max_tokens", "max_completion_tokens", "n", "tools", "temperature", "response_format"}
_CHECKED |= {"n_predict"}
"""Fields that the gateway decides by."""


def read_body(decoder: msgspec.json.Decoder[H], body: bytes) -> tuple[H, Mapping[str, msgspec.Raw]]:
    """The body decoded twice: what the gateway needs of it, typed, and all of its fields raw, to
    pass them on. Raises RequestError 400."""
    try:
        if not body.isascii():
            body.decode()  # the decoders skip what they do not read, and it is passed on
        head = decoder.decode(body)
        fields = _fields.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(
            400,
            "json_malformed",
            f"the body is not JSON: {error}",
            cure="send one JSON object with content-type application/json",
        ) from None
    for name in fields:
        if name not in _CHECKED and name.casefold() in _CHECKED:
            raise _twin(name)
    return head, fields


def _invalid(error: msgspec.ValidationError) -> RequestError:
    message, _, path = str(error).partition(" - at `$")
    ours = path.startswith(".tidegate")
    place = path.rstrip("`").lstrip(".")
    return RequestError(
        400,
        "request_invalid",
        f"{message} at {place or 'the top of the body'}",
        cure="write it as docs/http-api.md says, or leave it out"
        if ours
        else "send the types that the OpenAI API reference documents",
        param=place or None,
    )


def _twin(name: str) -> RequestError:
    """A field that differs from a known one only by case. Some upstreams ignore case (Go does) and
    read the last one: ``Max_Tokens`` would pass by the cap on ``max_tokens``."""
    return RequestError(
        400,
        "request_invalid",
        f"the field {name[:40]!r} differs from {name.casefold()[:40]!r} only by its case",
        cure="write the names of fields as the OpenAI API reference does",
        param=name[:40],
    )


def user_of(fields: Mapping[str, bytes]) -> str | None:
    """Who asks, by ``safety_identifier`` or ``user``; None when neither is a text."""
    for name in ("safety_identifier", "user"):
        raw = fields.get(name)
        if raw is not None:
            try:
                value = msgspec.json.decode(raw)
            except msgspec.DecodeError:  # a number out of range, which was passed over so far
                continue
            if isinstance(value, str) and value:
                return value
    return None
