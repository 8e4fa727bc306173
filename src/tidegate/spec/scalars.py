"""Scalar types of the spec and how each is written: names, durations, shares, sizes, paths.

A refusal is a ValueError ``what was wrong; what to write``: the part after the semicolon becomes
the ``expected`` of a mistake.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    PlainSerializer,
    Strict,
    WithJsonSchema,
)

from tidegate.base import duration_text, parse_duration, parse_share, parse_size

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"


def share_text(share: float) -> str:
    """``share`` in percent: ``5%``."""
    return f"{share * 100:.10g}%"


def size_text(size: int) -> str:
    """``size`` exactly, in the largest unit that divides it: ``4MiB``."""
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size and size % (1 << power) == 0:
            return f"{size >> power}{unit}"
    return str(size)


def _duration(value: object) -> float:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} has no unit of time; write 800ms, 5s, 10m, 1h or 30d")
    return parse_duration(value)


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"{value!r} is not a share; write 5% or 0.05")
    return parse_share(value)


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"{value!r} is not a size; write 512KiB, 4MiB or a number of bytes")
    return parse_size(value)


def _switch(value: object) -> bool:
    words = {"on": True, "off": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in words:
        return words[value]
    raise ValueError(f"{value!r} is neither on nor off; write on or off")


def matching(pattern: str, wrong: str, expected: str) -> Callable[[str], str]:
    """A validator of text that is wholly ``pattern``."""
    compiled = re.compile(pattern, re.ASCII)

    def validate(value: str) -> str:
        if compiled.fullmatch(value) is None:
            raise ValueError(f"{value!r} is not {wrong}; {expected}")
        return value

    return validate


def text(pattern: str, wrong: str, expected: str) -> Any:
    """Annotations of a text type: its check, and the same pattern for editors, under its name."""
    title = wrong.split(" ", 1)[1]
    schema = {"title": title, "type": "string", "pattern": f"^({pattern})$"}
    return (AfterValidator(matching(pattern, wrong, expected)), WithJsonSchema(schema))


def _inside(value: str) -> str:
    path = PurePosixPath(value)
    if not value or "\\" in value or "\0" in value or path.is_absolute() or ".." in path.parts:
        raise ValueError(
            f"{value!r} is not a path inside the app folder; write a path relative to it, with /"
        )
    return value


Duration = Annotated[
    float,
    BeforeValidator(_duration),
    PlainSerializer(duration_text, when_used="json"),
    WithJsonSchema(
        {
            "title": "duration",
            "type": "string",
            "pattern": r"^(\d+(\.\d+)?\s*(us|ms|s|m|h|d|w))+$",
        }
    ),
]
"""Seconds; written ``800ms``, ``5s``, ``1h30m``."""

Share = Annotated[
    float,
    BeforeValidator(_share),
    PlainSerializer(share_text, when_used="json"),
    WithJsonSchema(
        {
            "title": "share",
            "anyOf": [
                {"type": "string", "pattern": r"^\d+(\.\d+)?%$"},
                {"type": "number", "minimum": 0, "maximum": 1},
            ],
        }
    ),
]
"""A share in [0, 1]; written ``5%`` or ``0.05``."""

Size = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema(
        {
            "title": "size",
            "anyOf": [
                {"type": "string", "pattern": r"^\d+\s*([KMG]i?B|B)?$"},
                {"type": "integer", "minimum": 0},
            ],
        }
    ),
]
"""Bytes; written ``4MiB``."""

Switch = Annotated[
    bool,
    BeforeValidator(_switch),
    WithJsonSchema({"title": "switch", "enum": ["on", "off", True, False]}),
]
"""``on`` or ``off``."""

Name = Annotated[
    str,
    *text(_NAME, "a name", "write letters, digits, _ . or -, at most 64, a letter or digit first"),
]
"""The name of a thing in the spec."""

InputName = Annotated[
    str,
    *text(
        r"[A-Za-z_][A-Za-z0-9_]{0,63}", "an input's name", "write letters, digits or _, like goal"
    ),
]
"""The name of a template variable."""

AppPath = Annotated[
    str,
    AfterValidator(_inside),
    WithJsonSchema({"title": "path", "type": "string", "minLength": 1}),
]
"""A path relative to the app folder, with ``/``, never out of it."""

Sha256 = Annotated[
    str, *text(r"[0-9a-f]{64}", "a sha256", "write 64 lower-case hexadecimal digits")
]

T = TypeVar("T")
Items = Annotated[tuple[T, ...], Strict(False)]
"""A list in YAML, kept as a tuple."""
