"""Nodes of a YAML tree, each with its file, line and column.

Scalars follow the YAML 1.2 core schema, so ``no``, ``off``, ``1:30`` and dates stay text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MOST_BYTES = 1 << 20
MOST_DEPTH = 32
MOST_VALUES = 20_000

_INT = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]{1,300}(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")
_WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class BadYaml(Exception):
    """The text is not YAML as the spec is written in; carries its place."""

    def __init__(self, line: int, column: int, message: str, expected: str | None = None) -> None:
        super().__init__(message)
        self.line, self.column, self.message, self.expected = line, column, message, expected


@dataclass(frozen=True, slots=True)
class YamlScalar:
    """One value. ``text`` as written, quotes removed, variables not bound; ``plain`` when it had no
    quotes, so that it may mean a number, a boolean or nothing.

    ``size``: values in a node, aliases counted at each use. ``height``: levels below it."""

    text: str
    plain: bool
    file: str
    line: int
    column: int
    size: int = 1
    height: int = 0


@dataclass(frozen=True, slots=True)
class YamlList:
    items: tuple[YamlNode, ...]
    file: str
    line: int
    column: int
    size: int
    height: int


@dataclass(frozen=True, slots=True)
class YamlMapping:
    """``entries`` in the order written; keys are unique."""

    entries: dict[str, tuple[YamlScalar, YamlNode]]
    file: str
    line: int
    column: int
    size: int
    height: int


YamlNode = YamlScalar | YamlList | YamlMapping


def plain_value(text: str) -> object:
    """What an unquoted scalar means in the YAML 1.2 core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def decode(data: bytes) -> str:
    """The text of a spec file. Raises Refused."""
    if len(data) > MOST_BYTES:
        raise BadYaml(1, 1, f"the file is larger than {MOST_BYTES >> 20} MiB", "a smaller file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = error.start - (before.rfind(b"\n") + 1) + 1
        raise BadYaml(line, column, "the file is not UTF-8 text", "UTF-8") from None
    for at, letter in enumerate(text):
        if (
            (letter < " " and letter not in "\t\n\r")
            or letter == "\x7f"
            or "\ud7ff" < letter < "\ue000"
        ):
            line = text.count("\n", 0, at) + 1
            column = at - text.rfind("\n", 0, at)
            raise BadYaml(line, column, f"the file holds a control character (U+{ord(letter):04X})")
    return text
