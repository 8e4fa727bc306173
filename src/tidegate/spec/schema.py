"""The JSON Schema of the spec, and which keys may stand at a place in it."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from tidegate.spec.mistakes import Path
from tidegate.spec.scalars import duration_text, share_text
from tidegate.spec.types import Spec

FILE = "tidegate.schema.json"


class _Schema(GenerateJsonSchema):
    """Defaults are shown as a person would write them; titles made up from names are left out."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: Any) -> dict[str, Any]:
        made = super().default_schema(schema)
        kept = _written(made.get("default"), made)
        if kept in (None, {}, []):
            made.pop("default", None)
        else:
            made["default"] = kept
        return made


def _written(default: object, schema: dict[str, Any]) -> object:
    """``default`` in the form of ``schema``: seconds as ``5s``, a share as ``5%``."""
    forms = [schema, *schema.get("anyOf", ())]
    if isinstance(default, float) and not isinstance(default, bool):
        patterns = [str(form.get("pattern", "")) for form in forms]
        if any("ms|s|m" in pattern for pattern in patterns):
            return duration_text(default)
        if any(pattern.endswith("%$") for pattern in patterns):
            return share_text(default)
    if isinstance(default, (list, tuple)):
        return [_written(item, schema.get("items", {})) for item in default]
    return default


@functools.cache
def schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of ``tidegate.yaml``."""
    made = Spec.model_json_schema(schema_generator=_Schema)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tidegate.yaml",
        **made,
    }


def schema_text() -> str:
    """The shipped file: two spaces, the same bytes for the same types."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def forms(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The alternatives of a schema, references followed."""
    if "$ref" in node:
        name = str(node["$ref"]).rpartition("/")[2]
        yield from forms(schema()["$defs"][name])
    elif "anyOf" in node or "oneOf" in node:
        for choice in node.get("anyOf") or node.get("oneOf", []):
            yield from forms(choice)
    else:
        yield node


def keys_at(path: Path) -> tuple[str, ...]:
    """Keys that may stand in the mapping at ``path``; empty where names are free."""
    nodes = [schema()]
    for step in path:
        nodes = [found for node in nodes for form in forms(node) for found in _below(form, step)]
    return tuple(
        dict.fromkeys(
            key for node in nodes for form in forms(node) for key in form.get("properties", ())
        )
    )


def _below(form: dict[str, Any], step: str | int) -> Iterator[dict[str, Any]]:
    if isinstance(step, int):
        if isinstance(items := form.get("items"), dict):
            yield items
    elif step in form.get("properties", ()):
        yield form["properties"][step]
    elif isinstance(more := form.get("additionalProperties"), dict):
        yield more
    elif "patternProperties" in form:
        yield from form["patternProperties"].values()
