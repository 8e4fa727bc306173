"""Plain values to a typed spec: every refusal of the types as a finding, and the part that is
sound, so that the rules can be asked even when some keys are wrong."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from tidegate.spec.mistakes import Finding, Path, nearest, one_of
from tidegate.spec.schema import keys_at
from tidegate.spec.types import Spec

_QUOTED = re.compile(r"'([^']*)'")
_ROUNDS = 64

Details = Mapping[str, Any]

_SHAPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping of names",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
    "string_unicode": "text",
    "finite_number": "a number",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def check_types(plain: dict[str, object], authored: Mapping[Path, str]) -> list[Finding]:
    """Every refusal of the types, one for each place."""
    try:
        Spec.model_validate(plain)
    except ValidationError as error:
        found: dict[tuple[Path, bool], Finding] = {}
        for details in error.errors(include_url=False):
            finding = _finding(details, plain, authored)
            missing = finding.message.startswith("key ") and not finding.at_key
            found.setdefault((finding.path, missing), finding)
            if missing:
                found[(finding.path, missing)] = _joined(found[(finding.path, missing)], finding)
        return list(found.values())
    return []


def sound_part(plain: dict[str, object], wrong: set[Path]) -> Spec | None:
    """The spec without the places in ``wrong`` and whatever the types still refuse then; None
    when nothing remains."""
    rest = copy.deepcopy(plain)
    for _ in range(_ROUNDS):
        for path in sorted({_cut(path) for path in wrong}, reverse=True):
            _remove(rest, path)
        rest.setdefault("app", "app")
        try:
            return Spec.model_validate(rest)
        except ValidationError as error:
            wrong = {_located(details["loc"], rest)[0] for details in error.errors()}
            if () in wrong:
                return None
    return None


def _cut(path: Path) -> Path:
    """A list is taken out whole, so that the indexes of other items stay true."""
    for at, step in enumerate(path):
        if isinstance(step, int):
            return path[:at]
    return path


def _remove(rest: dict[str, object], path: Path) -> None:
    holder: object = rest
    for step in path[:-1]:
        if not isinstance(holder, dict) or step not in holder:
            return
        holder = holder[step]
    if path and isinstance(holder, dict):
        holder.pop(path[-1], None)


def _located(loc: tuple[str | int, ...], plain: object) -> tuple[Path, bool]:
    """The path of an error in the tree (names of alternatives skipped), and whether its last step
    stands there."""
    path: list[str | int] = []
    stands = True
    for step in loc:
        stands = _has(plain, step)
        if stands:
            plain = plain[step]  # type: ignore[index]
            path.append(step)
    return tuple(path), stands


def _has(holder: object, step: str | int) -> bool:
    if isinstance(holder, dict):
        return step in holder
    return isinstance(holder, list) and isinstance(step, int) and step < len(holder)


def _finding(details: Details, plain: object, authored: Mapping[Path, str]) -> Finding:
    kind, loc = str(details["type"]), details["loc"]
    path, _ = _located(loc, plain)
    if kind == "missing":
        # The long form of a short form may hold keys that the tree does not
        return Finding(path=path, message=f"key {loc[-1]} is missing", expected=f"key {loc[-1]}")
    if kind == "extra_forbidden":
        return _unknown_key(path)
    at_key = loc[-1] == "[key]"
    value = details.get("input")
    shown = authored.get(path)
    message, expected, near = _said(details, value)
    if shown is not None and message is not None:
        message = message.replace(repr(value), repr(shown))
    return Finding(
        path=path, message=message or "is not right", expected=expected, nearest=near, at_key=at_key
    )


def _joined(first: Finding, second: Finding) -> Finding:
    if first is second:
        return first
    name = str(second.expected).removeprefix("key ")
    return Finding(
        path=first.path,
        message=first.message.replace("key ", "keys ", 1)
        .replace(" is missing", "")
        .replace(" are missing", "")
        .replace("keys keys", "keys")
        + f", {name} are missing",
        expected=f"{first.expected}, {name}",
    )


def _unknown_key(path: Path) -> Finding:
    name, valid = str(path[-1]), keys_at(path[:-1])
    return Finding(
        path=path,
        message=f"unknown key {name}",
        expected=one_of(valid, most=20),
        nearest=nearest(name, valid),
        at_key=True,
    )


Said = tuple[str | None, str | None, str | None]


def _said(details: Details, value: object) -> Said:
    """Message, expected, nearest."""
    kind, context = str(details["type"]), details.get("ctx", {})
    if kind in _SHAPES:
        return f"{_named(value)} stands here", _SHAPES[kind], None
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"{_named(value)} is out of range", f"{words} {context[key]}", None
    return _SAID.get(kind, _other)(str(details["msg"]), context, value)


def _literal(_: str, context: Details, value: object) -> Said:
    allowed = _QUOTED.findall(str(context["expected"]))
    near = nearest(value, allowed) if isinstance(value, str) else None
    return f"{_named(value)} is not allowed here", one_of(allowed, most=20), near


def _refused(message: str, context: Details, _: object) -> Said:
    what, _, expected = str(context.get("error", message)).partition("; ")
    return what[:300], expected or None, None


def _other(message: str, _: Details, value: object) -> Said:
    return f"{_named(value)} is not right: {message[:200]}", None, None


_SAID: dict[str, Callable[[str, Details, object], Said]] = {
    "literal_error": _literal,
    "value_error": _refused,
    "string_too_short": lambda *_: ("the text is empty", "text", None),
}


def _named(value: object) -> str:
    """What stands there, in the words of YAML."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
