"""Every field of every authored type, with a value and other values for each."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import JsonValue

from tidegate.spec import types as authored
from tidegate.spec.part import SpecPart

Key = tuple[type[SpecPart], str]

_OTHER_CHOICE = authored.ModelChoice(small="first", large="second", choose="other")

VALUES: dict[Key, tuple[Any, ...]] = {
    (authored.Spec, "flags"): ("flags.json", "other/flags.json"),
    (authored.ModelSpec, "provider"): ("local", "other"),
    (authored.ModelSpec, "name"): ("vendor-1", "vendor-2", None),
    (authored.ModelSpec, "context"): (21, 22, None),
    (authored.ModelChoice, "large"): ("first", "second"),
    (authored.VariantSpec, "models"): (_OTHER_CHOICE, "a", None),
    (authored.VariantSpec, "prompt"): ("terse", "long"),
    (authored.LimitSpec, "on_outage"): ("closed", "open"),
}
"""Values of keys for which not any value of their type will do."""
NAMES: dict[Key, tuple[str, ...]] = {(authored.Spec, "models"): ("first", "second", "a", "b")}
"""Names in mappings that must be there since other keys name them."""
ONE_OF: dict[type[SpecPart], tuple[str, ...]] = {
    authored.ArtifactSpec: authored.SOURCES,
    authored.LimitSpec: ("requests", "tokens", "dollars"),
}
"""Keys of which a part has one."""
LEFT_OUT: set[Key] = {(authored.InputSpec, "default")}
"""Keys that mean something else only by being there."""


class Edit(NamedTuple):
    """``value`` with one key other than it was: ``key`` of ``part``, at any depth."""

    part: type[SpecPart]
    key: str
    value: Any


def parts(kind: type[SpecPart] = SpecPart) -> Iterator[type[SpecPart]]:
    """Every authored type."""
    for child in kind.__subclasses__():
        if child.__module__.startswith("tidegate."):
            yield child
        yield from parts(child)


def sample(part: type[SpecPart]) -> Any:
    """A part with every key written, but for those that exclude each other."""
    values = {}
    for key, field in part.model_fields.items():
        if (part, key) not in LEFT_OUT and key not in ONE_OF.get(part, ())[1:]:
            first = VALUES.get((part, key)) or tuple(_values(field.annotation))
            values[key] = first[0]
            if names := NAMES.get((part, key)):
                values[key] = dict.fromkeys(names, *values[key].values())
    for key in ONE_OF.get(part, ())[1:]:
        values[key] = None
    return part.model_construct(**values)


def edits(part: SpecPart) -> Iterator[Edit]:
    """``part``, a sample, once for each way to write one key of it or below it otherwise."""
    kind = type(part)
    for key, field in kind.model_fields.items():
        now = getattr(part, key)
        for other in VALUES.get((kind, key)) or _values(field.annotation):
            if (kind, key) in NAMES or (other is None and key in ONE_OF.get(kind, ())):
                continue
            if other != now or (kind, key) in LEFT_OUT:
                alone = dict.fromkeys(ONE_OF[kind]) if key in ONE_OF.get(kind, ()) else {}
                yield Edit(kind, key, part.model_copy(update={**alone, key: other}))
        if isinstance(now, dict):
            more = {**now, "more": next(iter(now.values()))}
            yield Edit(kind, key, part.model_copy(update={key: more}))
        for inner in _below(now):
            whole = part.model_copy(update={key: inner.value})
            yield inner._replace(value=whole)
            if isinstance(now, SpecPart):
                yield Edit(kind, key, whole)


def _below(value: Any) -> Iterator[Edit]:
    if isinstance(value, SpecPart):
        yield from edits(value)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from (one._replace(value={**value, name: one.value}) for one in _below(item))
    elif isinstance(value, tuple):
        for at, item in enumerate(value):
            for one in _below(item):
                yield one._replace(value=(*value[:at], one.value, *value[at + 1 :]))


_LEAVES: dict[Any, tuple[Any, ...]] = {
    str: ("a", "b"),
    int: (11, 12),
    float: (0.25, 0.75),
    bool: (True, False),
    JsonValue: ("x", "y"),
}


def _values(annotation: Any) -> Iterator[Any]:
    """Values of a type, the fullest first: for each alternative at least one, then None."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _LEAVES:
        yield from _LEAVES[annotation]
    elif isinstance(annotation, type) and issubclass(annotation, SpecPart):
        yield sample(annotation)
    elif origin is Literal:
        yield from inner
    elif origin is Annotated:
        yield from _values(inner[0])
    elif origin is dict:
        yield {"key": next(_values(inner[1]))}
        yield {}
    elif origin is tuple:
        every = tuple(_first_of_each(inner[0]))
        yield every
        yield ()
    elif origin in (typing.Union, types.UnionType):
        # Parts first: what is below a key is only walked in the value that stands there.
        yield from sorted(
            (value for one in inner if one is not types.NoneType for value in _values(one)),
            key=lambda value: not isinstance(value, SpecPart),
        )
        if types.NoneType in inner:
            yield None
    else:
        raise AssertionError(f"no value of {annotation}: name some in {__name__}")


def _first_of_each(annotation: Any) -> Iterator[Any]:
    if typing.get_origin(annotation) is Annotated:
        yield from _first_of_each(typing.get_args(annotation)[0])
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
        yield from (next(_values(one)) for one in typing.get_args(annotation))
    else:
        yield next(_values(annotation))
