"""Includes: one tree from ``tidegate.yaml`` and the files that it includes.

A name is defined in one file only, so that no file silently changes what another one says.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.base import bind
from tidegate.spec.compose import parse
from tidegate.spec.folder import Unreadable, read
from tidegate.spec.mistakes import Mistake
from tidegate.spec.nodes import (
    MOST_BYTES,
    BadYaml,
    YamlList,
    YamlMapping,
    YamlNode,
    YamlScalar,
    decode,
)
from tidegate.spec.types import Spec

MOST_FILES = 64
SECTIONS = frozenset(
    name for name, key in Spec.model_fields.items() if typing.get_origin(key.annotation) is dict
)
"""Sections of names, which several files may add to."""


@dataclass
class Reading:
    """State of one load: files read so far, their lines for quoting, mistakes found."""

    folder: Path
    shown: Path
    """The folder as a person named it."""
    environment: Mapping[str, str]
    lines: dict[str, list[str]] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)
    includes: list[str] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    incomplete: bool = False
    """Whether a file could not be read or parsed: names may be missing then, so what seems to be a
    further mistake would be a guess, and none is reported."""

    def name(self, path: str) -> str:
        return str(self.shown / path)

    def quote(self, file: str, line: int) -> str:
        lines = self.lines.get(file, [])
        return lines[line - 1][:400] if 0 < line <= len(lines) else ""

    def add_mistake(
        self,
        at: YamlNode | BadYaml,
        message: str,
        *,
        file: str | None = None,
        path: str = "",
        expected: str | None = None,
        nearest: str | None = None,
    ) -> None:
        name = file if file is not None or isinstance(at, BadYaml) else at.file
        self.mistakes.append(
            Mistake(
                file=name or "",
                line=at.line,
                column=at.column,
                path=path,
                message=message,
                expected=expected,
                nearest=nearest,
                source=self.quote(name or "", at.line),
            )
        )


def read_tree(reading: Reading, path: str) -> YamlMapping | None:
    """The merged top mapping, ``include`` taken out; None when there is none. Mistakes go to
    ``reading``."""
    return _read(reading, path, (), None)


def _read(
    reading: Reading, path: str, above: tuple[str, ...], asked_at: YamlScalar | None
) -> YamlMapping | None:
    shown = reading.name(path)
    try:
        # ``decode`` says the same of a file that is too large, so read one byte more than it takes
        data = read(reading.folder, path, most=MOST_BYTES)
        text = decode(data)
        reading.lines[shown] = text.splitlines()
        reading.sources.append(path)
        parsed = parse(text, shown)
    except Unreadable as error:
        at: YamlNode | BadYaml = asked_at or BadYaml(1, 1, error.message)
        file = None if asked_at else shown
        reading.add_mistake(at, error.message, file=file, path="include", nearest=error.nearest)
        reading.incomplete = True
        return None
    except BadYaml as error:
        reading.add_mistake(error, error.message, file=shown, expected=error.expected)
        reading.incomplete = True
        return None
    for problem in parsed.problems:
        reading.add_mistake(problem, problem.message, file=shown, expected=problem.expected)
    if not isinstance(parsed.node, YamlMapping):
        what = "is empty" if parsed.node is None else "holds no mapping at its top"
        at = parsed.node or BadYaml(1, 1, what)
        reading.add_mistake(at, f"the file {what}", file=shown, expected="keys, like app: my-app")
        reading.incomplete = True
        return None
    return _with_includes(reading, parsed.node, path, (*above, path))


def _with_includes(
    reading: Reading, top: YamlMapping, path: str, above: tuple[str, ...]
) -> YamlMapping:
    entries = dict(top.entries)
    asked = entries.pop("include", None)
    for scalar in _paths(reading, asked[1]) if asked else ():
        target = bind(scalar.text, reading.environment).text
        if target in above:
            circle = " -> ".join((*above[above.index(target) :], target))
            reading.add_mistake(
                scalar, f"the files include each other in a circle: {circle}", path="include"
            )
        elif len(reading.sources) >= MOST_FILES:
            reading.add_mistake(scalar, f"more than {MOST_FILES} files", path="include")
        elif target not in reading.sources:
            if len(above) == 1:
                reading.includes.append(target)
            below = _read(reading, target, above, scalar)
            _merge(reading, entries, below.entries if below else {})
    size = 1 + sum(1 + value.size for _, value in entries.values())
    return YamlMapping(entries, top.file, top.line, top.column, size, top.height)


def _paths(reading: Reading, node: YamlNode) -> tuple[YamlScalar, ...]:
    items = node.items if isinstance(node, YamlList) else (node,)
    good = []
    for item in items:
        bound = bind(item.text if isinstance(item, YamlScalar) else "", reading.environment)
        target = bound.text
        if bound.unset:
            reading.add_mistake(item, f"variable {bound.unset[0]} is not set", path="include")
            reading.incomplete = True
        elif not isinstance(item, YamlScalar) or not target:
            reading.add_mistake(
                item, "include names no file", path="include", expected="a path or a list"
            )
        elif target.startswith("/") or ".." in target.split("/") or "\0" in target:
            reading.add_mistake(
                item,
                f"{target!r} is not a path inside the app folder",
                path="include",
                expected="a path relative to the folder of tidegate.yaml",
            )
        else:
            good.append(item)
    return tuple(good)


def _merge(
    reading: Reading,
    entries: dict[str, tuple[YamlScalar, YamlNode]],
    more: dict[str, tuple[YamlScalar, YamlNode]],
) -> None:
    for key, (at, value) in more.items():
        if key not in entries:
            entries[key] = (at, value)
            continue
        first_at, first = entries[key]
        if key in SECTIONS and isinstance(first, YamlMapping) and isinstance(value, YamlMapping):
            merged = dict(first.entries)
            for name, entry in value.entries.items():
                if name in merged:
                    _twice(reading, entry[0], merged[name][0], f"{key}.{name}")
                else:
                    merged[name] = entry
            size = first.size + value.size
            height = max(first.height, value.height)
            joined = YamlMapping(merged, first.file, first.line, first.column, size, height)
            entries[key] = (first_at, joined)
        else:
            _twice(reading, at, first_at, key)


def _twice(reading: Reading, second: YamlScalar, first: YamlScalar, path: str) -> None:
    reading.add_mistake(
        second,
        f"{path} is defined twice; first in {first.file} line {first.line}",
        path=path,
        expected="each name in one file",
    )
