"""Rules for the contents of files that a spec names: templates, JSON Schemas, flag documents.

Pure: the bytes were read before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jinja2
import jsonschema_rs
from jinja2 import meta, nodes

from tidegate.base import ENVIRONMENT, flag_rules
from tidegate.spec.files import SpecFiles, Use, uses
from tidegate.spec.mistakes import Finding, nearest, one_of
from tidegate.spec.types import Spec

_OTHER_FILES = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)


def findings(spec: Spec, files: SpecFiles) -> Iterator[Finding]:
    """Findings of all rules, file by file."""
    seen: set[tuple[str, str]] = set()
    for use in uses(spec):
        data = files.bytes_of.get(use.path)
        if data is None or use.path in files.missing:
            continue
        if use.kind == "prompt":
            yield from _prompt(use, data, spec)
        elif use.kind != "data" and (use.path, use.kind) not in seen:
            seen.add((use.path, use.kind))
            if use.kind == "flags":
                yield from _flags(use, data, spec)
            else:
                yield from _template(use, data) if use.kind == "template" else _schema(use, data)


class _Tracker(meta.TrackingCodeGenerator):
    """Finds the variables of a template without computing any part of it: jinja's own finder folds
    constants, so that a template like ``{{ 9 ** 9 ** 9 }}`` would hold it for ever."""

    def __init__(self) -> None:
        super().__init__(ENVIRONMENT)
        self.optimizer = None

    def variables(self, tree: nodes.Template) -> set[str]:
        self.visit(tree)
        return self.undeclared_identifiers - ENVIRONMENT.globals.keys()


@dataclass(frozen=True, slots=True)
class _Read:
    """A sound template: its text, tree, and the variables that it is given."""

    text: str
    tree: nodes.Template
    variables: set[str]


def _text(use: Use, data: bytes) -> str | Finding:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return Finding(
            path=use.place,
            file=use.path,
            line=line,
            message=f"{use.path} is not UTF-8 text",
            expected="UTF-8",
        )


def _read(use: Use, data: bytes) -> _Read | Finding:
    text = _text(use, data)
    if isinstance(text, Finding):
        return text
    try:
        tree = ENVIRONMENT.parse(text)
        found = _wrong_node(use, tree)
        return found or _Read(text, tree, _Tracker().variables(tree))
    except jinja2.TemplateSyntaxError as error:
        what = f"not a valid template: {error.message}"
        return Finding(path=use.place, file=use.path, line=error.lineno, message=what)
    except RecursionError:
        return Finding(path=use.place, file=use.path, message="the template is nested too deeply")


def _wrong_node(use: Use, tree: nodes.Template) -> Finding | None:
    """The first part of a template that could not be rendered."""
    for other in tree.find_all(_OTHER_FILES):
        return Finding(
            path=use.place,
            file=use.path,
            line=other.lineno,
            message="a template cannot take in other files",
            expected="the whole text in this file",
        )
    for kind, what, known in (
        (nodes.Filter, "filter", ENVIRONMENT.filters),
        (nodes.Test, "test", ENVIRONMENT.tests),
    ):
        for node in tree.find_all(kind):
            if node.name not in known:
                return Finding(
                    path=use.place,
                    file=use.path,
                    line=node.lineno,
                    message=f"not a valid template: there is no {what} {node.name}",
                    nearest=nearest(node.name, known),
                )
    return None


def _template(use: Use, data: bytes) -> Iterator[Finding]:
    read = _read(use, data)
    if isinstance(read, Finding):
        yield read


def _prompt(use: Use, data: bytes, spec: Spec) -> Iterator[Finding]:
    read = _read(use, data)
    if isinstance(read, Finding):
        yield read
        return
    name = str(use.place[1])
    declared = spec.prompts[name].inputs
    used = read.variables
    for variable in sorted(used - declared.keys()):
        line, column = _first(read, variable)
        yield Finding(
            path=("prompts", name, "inputs"),
            file=use.path,
            line=line,
            column=column,
            message=f"the template uses {variable}, which prompt {name} does not declare",
            expected=one_of(declared) or f"prompts.{name}.inputs to declare it",
            nearest=nearest(variable, declared),
        )
    for variable in sorted(declared.keys() - used):
        yield Finding(
            path=("prompts", name, "inputs", variable),
            message=f"input {variable} is declared but {use.path} does not use it",
            expected=one_of(used),
            nearest=nearest(variable, used - declared.keys()),
            at_key=True,
        )


def _first(read: _Read, variable: str) -> tuple[int, int]:
    """Line and column where ``variable`` is first read."""
    names = (n for n in read.tree.find_all(nodes.Name) if n.name == variable and n.ctx == "load")
    line = min((name.lineno for name in names), default=1)
    lines = read.text.splitlines()
    return line, (lines[line - 1].find(variable) if line <= len(lines) else 0) + 1 or 1


def _no_constant(word: str) -> object:
    raise ValueError(f"{word} is not JSON")


def _schema(use: Use, data: bytes) -> Iterator[Finding]:
    text = _text(use, data)
    if isinstance(text, Finding):
        yield text
        return
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        yield Finding(
            path=use.place,
            file=use.path,
            line=error.lineno,
            column=error.colno,
            message=f"not valid JSON: {error.msg.lower()}",
        )
        return
    except (ValueError, RecursionError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        yield Finding(path=use.place, file=use.path, message=f"not valid JSON: {what}")
        return
    if wrong := _not_a_schema(value, tool=use.place[0] == "tools"):
        yield Finding(path=use.place, file=use.path, message=wrong, expected="a JSON Schema")


def _flags(use: Use, data: bytes, spec: Spec) -> Iterator[Finding]:
    """A sound flagd document, that has the flags and variants which routes name."""
    text = _text(use, data)
    if isinstance(text, Finding):
        yield text
        return
    document, problems = flag_rules.read(text)
    for problem in problems:
        yield Finding(path=use.place, file=use.path, message=problem)
    if document is None or problems:
        return
    flags = document["flags"]
    for name, route in spec.routes.items():
        if route.flag is None:
            continue
        if route.flag not in flags:
            yield Finding(
                path=("routes", name, "flag"),
                message=f"there is no flag {route.flag} in {use.path}",
                expected=one_of(flags),
                nearest=nearest(route.flag, flags),
            )
            continue
        known = flags[route.flag]["variants"]
        for variant in route.variants.keys() - known.keys():
            yield Finding(
                path=("routes", name, "variants", variant),
                message=f"flag {route.flag} in {use.path} has no variant {variant}",
                expected=one_of(known),
                nearest=nearest(variant, known),
                at_key=True,
            )


def _no_network(address: str) -> Any:
    raise ValueError(f"{address} is another document; put it in $defs")


def _not_a_schema(value: object, *, tool: bool) -> str | None:
    """Why ``value`` is not a JSON Schema that can be used, or None."""
    if not isinstance(value, dict):
        return "not a JSON Schema: it is no object"
    if tool and value.get("type") != "object":
        return 'the schema of a tool\'s arguments must have "type": "object"'
    try:
        jsonschema_rs.validator_for(value, retriever=_no_network)
    except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        first = (str(error).splitlines() or [""])[0]
        return f"not a valid JSON Schema: {first[:300]}"
    return None
