"""The base of every authored type, and how its keys get the defaults of what they resolve to.

A default stands once, in the resolved type (``tidegate.release``): that is what a gateway serves
from, and what a release of an older version is filled up with. The authored type names its
counterpart and inherits the defaults of all keys that have the same name there.
"""

from __future__ import annotations

import typing
from typing import Any, ClassVar

import msgspec
from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo


class SpecPart(BaseModel):
    """One mapping of ``tidegate.yaml``: frozen, strict, no unknown keys, documented by docstrings.

    ``class RetriesSpec(SpecPart, resolves=release.Retries)``: a key without a default of its own
    has that of the field of the same name; a key that has one, where that field has one too, is an
    error. ``own`` names the keys that mean something else than the field of the same name.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
    )

    resolves: ClassVar[type[msgspec.Struct] | None] = None
    """What it becomes in a release; None: the part around it takes it apart."""

    def __init_subclass__(cls, **words: Any) -> None:
        """Take the words of the class statement, which pydantic hands on below."""
        super().__init_subclass__()

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        resolves: type[msgspec.Struct] | None = None,
        own: tuple[str, ...] = (),
        **config: Any,
    ) -> None:
        super().__pydantic_init_subclass__(**config)
        cls.resolves = resolves
        for field in msgspec.structs.fields(resolves) if resolves is not None else ():
            key = cls.model_fields.get(field.name)
            if key is None or field.name in own or field.required:
                continue
            if not key.is_required():
                raise TypeError(f"{cls.__name__}.{field.name}: its default stands twice")
            _inherit(key, field)
        cls.model_rebuild(force=True)


def _inherit(key: FieldInfo, field: msgspec.structs.FieldInfo) -> None:
    if field.default_factory is not msgspec.NODEFAULT:
        key.default_factory = field.default_factory
    elif isinstance(field.default, msgspec.Struct):
        key.default = _part_in(key.annotation).model_validate({})
    else:
        key.default = field.default


def _part_in(annotation: Any) -> type[SpecPart]:
    """The authored type in ``Pool | None``."""
    return next(
        one
        for one in (annotation, *typing.get_args(annotation))
        if isinstance(one, type) and issubclass(one, SpecPart)
    )


def default(kind: type[msgspec.Struct], field: str) -> Any:
    """The default of a field that a key becomes under another name."""
    return next(one.default for one in msgspec.structs.fields(kind) if one.name == field)
