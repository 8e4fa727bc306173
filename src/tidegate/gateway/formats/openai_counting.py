"""The text of a prompt in the OpenAI format, to count its tokens."""

from __future__ import annotations

import json
from typing import Any

from tidegate.base import RequestError


def content_of(raw: bytes) -> tuple[str, int]:
    """The text of a prompt, and how many tokens it holds that came as numbers."""
    # What numbers say does not matter, and none is too large to be read so.
    try:
        value = json.loads(
            raw.decode(),
            object_pairs_hook=_once,
            parse_int=lambda _: 0,
            parse_float=lambda _: 0,
        )
    except RecursionError:  # where the body was read, a few more levels were left
        raise _too_deep() from None
    texts: list[str] = []
    numbers = 0
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, int):
            numbers += 1
        elif isinstance(part, list):
            numbers += len(part)
        elif isinstance(part, dict):
            texts.extend(_texts(part.get("content")))
    return "\n".join(texts), numbers


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else []
    return [
        part["text"]
        for part in parts
        if isinstance(part, dict) and isinstance(part.get("text"), str)
    ]


def _too_deep() -> RequestError:
    return RequestError(
        400,
        "request_invalid",
        "the messages are nested too deeply to be counted",
        cure="send the shapes that the OpenAI API reference documents",
        param="messages",
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without duplicate names: of two equal names, one would be counted and the other
    read by the model."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise RequestError(
            400,
            "request_invalid",
            "an object in messages has a name twice",
            cure="write each name once",
            param="messages",
        )
    return found
