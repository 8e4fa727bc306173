"""Every field of every msgspec type below another, with a value and another value for each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

Kind = type[msgspec.Struct]


class Edit(NamedTuple):
    """``value`` with one field other than it was: ``field`` of ``kind``, at any depth."""

    kind: Kind
    field: str
    value: Any
    around: tuple[tuple[Kind, str], ...] = ()
    """The fields that hold it, innermost first."""


def kinds(*roots: Kind) -> set[Kind]:
    """``roots`` and every struct type that their fields can hold."""
    found: set[Kind] = set()
    todo: list[inspect.Type] = [inspect.type_info(root) for root in roots]
    while todo:
        one = todo.pop()
        if isinstance(one, inspect.StructType):
            if one.cls not in found:
                found.add(one.cls)
                todo += [field.type for field in one.fields]
        else:
            todo += _inner(one)
    return found


def fields(kind: Kind) -> dict[str, inspect.Type]:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return {field.name: field.type for field in info.fields}


def sample(kind: Kind, turn: int = 0) -> Any:
    """A value with every field filled in; another one for another ``turn``."""
    return kind(**{name: _value(one, turn) for name, one in fields(kind).items()})


def edits(value: msgspec.Struct) -> Iterator[Edit]:
    """``value``, a sample, once for each way to change one field of it or below it."""
    kind = type(value)
    for name, one in fields(kind).items():
        now = getattr(value, name)
        for other in (_value(one, 1), *((None,) if _optional(one) else ())):
            if other != now:
                yield Edit(kind, name, msgspec.structs.replace(value, **{name: other}))
        for inner in _below(now):
            yield inner._replace(
                value=msgspec.structs.replace(value, **{name: inner.value}),
                around=(*inner.around, (kind, name)),
            )


def _below(value: Any) -> Iterator[Edit]:
    if isinstance(value, msgspec.Struct):
        yield from edits(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from (one._replace(value={**value, key: one.value}) for one in _below(item))
    elif isinstance(value, tuple):
        for at, item in enumerate(value):
            for one in _below(item):
                yield one._replace(value=(*value[:at], one.value, *value[at + 1 :]))


def _optional(one: inspect.Type) -> bool:
    return isinstance(one, inspect.UnionType) and one.includes_none


def _inner(one: inspect.Type) -> list[inspect.Type]:
    if isinstance(one, inspect.UnionType):
        return list(one.types)
    if isinstance(one, inspect.DictType):
        return [one.value_type]
    return [one.item_type] if isinstance(one, inspect.VarTupleType) else []


_LEAVES: dict[type[inspect.Type], tuple[Any, Any]] = {
    inspect.StrType: ("a", "b"),
    inspect.IntType: (11, 12),
    inspect.FloatType: (0.25, 0.75),
    inspect.BoolType: (True, False),
    inspect.AnyType: ("x", "y"),
}


def _value(one: inspect.Type, turn: int) -> Any:
    if type(one) in _LEAVES:
        return _LEAVES[type(one)][turn]
    if isinstance(one, inspect.StructType):
        return sample(one.cls, turn)
    if isinstance(one, inspect.LiteralType):
        return one.values[turn % len(one.values)]
    if isinstance(one, inspect.UnionType):
        return _value(next(t for t in one.types if not isinstance(t, inspect.NoneType)), turn)
    if isinstance(one, inspect.VarTupleType):
        return (_value(one.item_type, turn),)
    if isinstance(one, inspect.DictType):
        return {"key": _value(one.value_type, turn)}
    raise AssertionError(f"no sample of {one}: name one in {__name__}")
