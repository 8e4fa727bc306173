"""Type errors as findings, and the valid part of a spec, so that the rules can run although some
keys are wrong."""

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
    """Findings for what the types refuse, one for each place."""
    try:
        Spec.model_validate(plain)
    except ValidationError as error:
        errors = error.errors(include_url=False)
    else:
        return []
    found: dict[Path, Finding] = {}
    missing: dict[Path, list[str]] = {}
    for details in errors:
        path = _located(details["loc"], plain)
        if details["type"] == "missing":
            missing.setdefault(path, []).append(str(details["loc"][-1]))
        else:
            found.setdefault(path, _finding(details, path, authored))
    misspelt = {(*one.path[:-1], one.nearest) for one in found.values() if one.nearest}
    for path, keys in missing.items():
        if left := [key for key in keys if (*path, key) not in misspelt]:
            found.setdefault(path, _missing(path, left))
    return list(found.values())


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
            wrong = {_located(details["loc"], rest) for details in error.errors()}
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


def _located(loc: tuple[str | int, ...], plain: object) -> Path:
    """The path of an error in the tree; steps that do not stand in it (names of alternatives, keys
    of the long form of a short form, missing keys) are skipped."""
    path: list[str | int] = []
    for step in loc:
        if _has(plain, step):
            plain = plain[step]  # type: ignore[index]
            path.append(step)
    return tuple(path)


def _has(holder: object, step: str | int) -> bool:
    if isinstance(holder, dict):
        return step in holder
    return isinstance(holder, list) and isinstance(step, int) and step < len(holder)


def _finding(details: Details, path: Path, authored: Mapping[Path, str]) -> Finding:
    if details["type"] == "extra_forbidden":
        return _unknown_key(path)
    value = details.get("input")
    message, expected, near = _wording(details, value)
    if path in authored:
        message = _without(message, value, authored[path])
    at_key = details["loc"][-1] == "[key]"
    return Finding(path=path, message=message, expected=expected, nearest=near, at_key=at_key)


def _without(message: str, value: object, authored: str) -> str:
    """``message`` with what was written in place of ``value``, which a variable held."""
    for shown in (_named(value), repr(value), str(value)[:60]):
        message = message.replace(shown, repr(authored)) if shown else message
    return message


def _missing(path: Path, keys: list[str]) -> Finding:
    names = ", ".join(keys)
    what = f"key {names} is missing" if len(keys) == 1 else f"keys {names} are missing"
    return Finding(path=path, message=what, expected=names, at_key=True)


def _unknown_key(path: Path) -> Finding:
    name, valid = str(path[-1]), keys_at(path[:-1])
    return Finding(
        path=path,
        message=f"unknown key {name}",
        expected=one_of(valid, most=20),
        nearest=nearest(name, valid),
        at_key=True,
    )


Wording = tuple[str, str | None, str | None]


def _wording(details: Details, value: object) -> Wording:
    """Message, expected, nearest."""
    kind, context = str(details["type"]), details.get("ctx", {})
    if kind in _SHAPES:
        return f"{_named(value)} stands here", _SHAPES[kind], None
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"{_named(value)} is out of range", f"{words} {context[key]}", None
    return _WORDINGS.get(kind, _other)(str(details["msg"]), context, value)


def _literal(_: str, context: Details, value: object) -> Wording:
    allowed = _QUOTED.findall(str(context["expected"]))
    near = nearest(value, allowed) if isinstance(value, str) else None
    return f"{_named(value)} is not allowed here", one_of(allowed, most=20), near


def _refused(message: str, context: Details, _: object) -> Wording:
    what, _, expected = str(context.get("error", message)).partition("; ")
    return what[:300], expected.removeprefix("write ") or None, None


def _other(message: str, _: Details, value: object) -> Wording:
    return f"{_named(value)} is not right: {message[:200]}", None, None


_WORDINGS: dict[str, Callable[[str, Details, object], Wording]] = {
    "literal_error": _literal,
    "value_error": _refused,
    "string_too_short": lambda *_: ("the text is empty", "text", None),
}


def _named(value: object) -> str:
    """A value as a message names it, in the words of YAML."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {value[:60]!r}" + ("..." if len(value) > 60 else "")
    return f"the number {value!r}"
