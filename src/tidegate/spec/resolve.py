"""The resolver: an authored part to its value in a release, key by key of the same name.

A key that becomes a field of the same name needs no line here, whatever it holds: text, a list,
names to parts. The exceptions are registered with ``differences``, in ``build``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import singledispatch

import msgspec

from tidegate.release import Pins
from tidegate.spec.part import SpecPart
from tidegate.spec.types import Spec


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The context of a part that is resolved: its name in the mapping around it, the whole spec,
    the files of the app folder."""

    name: str
    spec: Spec
    pins: Pins


@singledispatch
def differences(part: SpecPart, around: Surroundings) -> dict[str, object]:
    """The fields of what ``part`` becomes that are not its key of the same name; registered for
    each type that has any."""
    return {}


def resolve(part: SpecPart, around: Surroundings) -> msgspec.Struct:
    """The release value of ``part``, of the type that it ``resolves`` to."""
    if part.resolves is None:
        raise TypeError(f"{type(part).__name__} is taken apart by the part around it")
    values = differences(part, around)
    for field in msgspec.structs.fields(part.resolves):
        if field.name not in values:
            values[field.name] = resolved(getattr(part, field.name), around)
    return part.resolves(**values)


def resolved(value: object, around: Surroundings) -> object:
    """The value of a key with the parts in it resolved and names sorted; all else unchanged."""
    if isinstance(value, SpecPart):
        return resolve(value, around)
    if isinstance(value, tuple):
        return tuple(resolved(item, around) for item in value)
    if isinstance(value, dict):
        return {name: resolved(value[name], replace(around, name=name)) for name in sorted(value)}
    return value
