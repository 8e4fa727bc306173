"""The YAML parser of the spec: text to a tree of nodes with positions, bounded in size and depth.

A duplicate key, an alias to itself, a merge key and a tag of a program's type are mistakes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from tidegate.spec.nodes import (
    MOST_DEPTH,
    MOST_VALUES,
    BadYaml,
    YamlList,
    YamlMapping,
    YamlNode,
    YamlScalar,
    plain_value,
)

_TAG = "tag:yaml.org,2002:"
_BASE: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_EXPLICIT: dict[str | None, tuple[type, ...]] = {
    f"{_TAG}int": (int,),
    f"{_TAG}float": (int, float),
    f"{_TAG}bool": (bool,),
    f"{_TAG}null": (type(None),),
}


@dataclass(frozen=True, slots=True)
class ParsedYaml:
    """The outcome of parsing one file. ``node`` is None for an empty one; ``problems`` are the
    parts that were left out of it."""

    node: YamlNode | None
    problems: tuple[BadYaml, ...]


def parse(text: str, file: str) -> ParsedYaml:
    """The one document in ``text``. Raises Refused where nothing more can be read."""
    loader = _BASE(text)
    composer = _Composer(loader, file)
    try:
        return ParsedYaml(composer.document(), tuple(composer.problems))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise BadYaml(line, column, _sentence(error, text, line)) from None
    except yaml.YAMLError as error:
        raise BadYaml(1, 1, f"not valid YAML: {str(error).splitlines()[0]}") from None
    finally:
        loader.dispose()


def _sentence(error: yaml.MarkedYAMLError, text: str, line: int) -> str:
    lines = text.splitlines()
    written = lines[line - 1] if line <= len(lines) else ""
    if "\t" in written[: len(written) - len(written.lstrip())]:
        return "not valid YAML: the line is indented with a tab; use spaces"
    hint = "; inside { } or [ ] a ${VARIABLE} stands in quotes" if "${" in written else ""
    return "not valid YAML: " + ", ".join(p for p in (error.context, error.problem) if p) + hint


def _start(event: yaml.Event) -> tuple[int, int]:
    """Line and column, from 1."""
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


class _Composer:
    """One pass over the parser's events; recursion is bounded by MOST_DEPTH.

    An alias counts with the size of what it names each time it is used: a few lines of aliases to
    aliases would otherwise unfold to gigabytes (the "billion laughs").
    """

    def __init__(self, loader: yaml.SafeLoader, file: str) -> None:
        self.events: Iterator[yaml.Event] = iter(loader.get_event, None)
        self.file = file
        self.anchors: dict[str, YamlNode | None] = {}
        self.problems: list[BadYaml] = []

    def document(self) -> YamlNode | None:
        node: YamlNode | None = None
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if node is not None:
                    raise self.refused(event, "the file holds a second document", "one document")
                node = self.node(next(self.events), 0)
        return node

    def refused(self, event: yaml.Event, message: str, expected: str | None = None) -> BadYaml:
        return BadYaml(*_start(event), message, expected)

    def node(self, event: yaml.Event, depth: int) -> YamlNode:
        if depth > MOST_DEPTH:
            raise self.refused(event, f"nested deeper than {MOST_DEPTH} levels", "a flatter spec")
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, depth)
        anchor = getattr(event, "anchor", None)
        if anchor:
            # Known, but without a node: an alias inside it would make a tree without end.
            self.anchors[anchor] = None
        node = self.fresh(event, depth)
        if anchor:
            self.anchors[anchor] = node
        return node

    def alias(self, event: yaml.AliasEvent, depth: int) -> YamlNode:
        if event.anchor not in self.anchors:
            raise self.refused(event, f"alias *{event.anchor} has no anchor before it")
        node = self.anchors[event.anchor]
        if node is None:
            raise self.refused(event, f"alias *{event.anchor} stands inside its own anchor")
        if depth + node.height > MOST_DEPTH:
            raise self.refused(event, f"nested deeper than {MOST_DEPTH} levels", "a flatter spec")
        return node

    def fresh(self, event: yaml.Event, depth: int) -> YamlNode:
        line, column = _start(event)
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event, line, column)
        tag = getattr(event, "tag", None)
        if tag not in (None, "!", f"{_TAG}map", f"{_TAG}seq"):
            self.leave_out(event, f"tag {tag} is not used in a spec", "no tag")
        if isinstance(event, yaml.SequenceStartEvent):
            return self.listing(depth, line, column)
        return self.mapping(event, depth, line, column)

    def leave_out(self, event: yaml.Event, message: str, expected: str | None = None) -> None:
        self.problems.append(self.refused(event, message, expected))

    def scalar(self, event: yaml.ScalarEvent, line: int, column: int) -> YamlScalar:
        plain = not event.style and event.tag is None
        if event.tag in _EXPLICIT:
            plain = True
            if type(plain_value(event.value)) not in _EXPLICIT[event.tag]:
                self.leave_out(event, f"{event.value!r} is not of its tag's type")
        elif event.tag not in (None, "!", f"{_TAG}str"):
            self.leave_out(event, f"tag {event.tag} is not used in a spec", "no tag")
        return YamlScalar(event.value, plain, self.file, line, column)

    def listing(self, depth: int, line: int, column: int) -> YamlList:
        items: list[YamlNode] = []
        size, height = 1, 0
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.node(event, depth + 1))
            size += items[-1].size
            height = max(height, items[-1].height + 1)
            self.within(event, size)
        return YamlList(tuple(items), self.file, line, column, size, height)

    def within(self, event: yaml.Event, size: int) -> None:
        if size > MOST_VALUES:
            raise self.refused(
                event, f"more than {MOST_VALUES} values, aliases counted", "a smaller spec"
            )

    def mapping(self, start: yaml.Event, depth: int, line: int, column: int) -> YamlMapping:
        entries: dict[str, tuple[YamlScalar, YamlNode]] = {}
        size, height = 1, 0
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.key(event, depth)
            value = self.node(next(self.events), depth + 1)
            size += 1 + value.size
            height = max(height, value.height + 1)
            self.within(event, size)
            if key is None:
                continue
            if key.text in entries:
                first = entries[key.text][0].line
                self.leave_out(
                    event, f"key {key.text} stands twice; first in line {first}", "each key once"
                )
                continue
            entries[key.text] = (key, value)
        return YamlMapping(entries, self.file, line, column, size, height)

    def key(self, event: yaml.Event, depth: int) -> YamlScalar | None:
        """The key, or None when it is left out as a mistake."""
        key = self.node(event, depth + 1)
        if not isinstance(key, YamlScalar):
            self.leave_out(event, "a key is a list or a mapping", "a key of text")
        elif key.plain and key.text == "<<":
            self.leave_out(
                event, "merge keys (<<) are not used in a spec", "the keys written out, or an alias"
            )
        elif key.plain and not isinstance(plain_value(key.text), str):
            self.leave_out(
                event, f"key {key.text or '(empty)'} is not text", f'text; write "{key.text}"'
            )
        else:
            return key
        return None
