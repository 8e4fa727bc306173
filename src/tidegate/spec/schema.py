"""The JSON Schema of the spec, and which keys may stand at a place in it."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from tidegate.base import duration_text
from tidegate.spec.compose import parse
from tidegate.spec.mistakes import Path
from tidegate.spec.nodes import BadYaml, YamlMapping
from tidegate.spec.places import to_plain
from tidegate.spec.scalars import share_text, size_text
from tidegate.spec.types import Spec

FILE = "tidegate.schema.json"


class _Schema(GenerateJsonSchema):
    """Defaults are shown as a person would write them; titles made up from names are left out."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: Any) -> dict[str, Any]:
        made = super().default_schema(schema)
        kept = _written(made.get("default"), made)
        if kept in (None, "", [], ()) or isinstance(kept, dict):
            made.pop("default", None)
        else:
            made["default"] = kept
        return made


def _written(default: object, schema: dict[str, Any]) -> object:
    """``default`` in the form of ``schema``: seconds as ``5s``, a share as ``5%``."""
    titles = [form.get("title") for form in (schema, *schema.get("anyOf", ()))]
    if isinstance(default, float) and "duration" in titles:
        return duration_text(default)
    if isinstance(default, float) and "share" in titles:
        return share_text(default)
    if isinstance(default, int) and "size" in titles:
        return size_text(default)
    if isinstance(default, (list, tuple)):
        return [_written(item, schema.get("items", {})) for item in default]
    return default


@functools.cache
def schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of ``tidegate.yaml``. Examples are text, as a person writes them."""
    made = _tidy(Spec.model_json_schema(schema_generator=_Schema))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **made,
        "title": "tidegate.yaml",
    }


def _tidy(value: Any) -> Any:
    """Descriptions without the line breaks of the source."""
    if isinstance(value, list):
        return [_tidy(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: " ".join(item.split())
        if key == "description" and isinstance(item, str)
        else _tidy(item)
        for key, item in value.items()
    }


def _with_values(value: Any) -> Any:
    """The schema with examples as values, which is what editors take."""
    if isinstance(value, list):
        return [_with_values(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: [_example(text) for text in item]
        if key == "examples" and isinstance(item, list)
        else _with_values(item)
        for key, item in value.items()
    }


def _example(text: str) -> object:
    try:
        node = parse(f"example: {text}", "").node
    except BadYaml:
        return text  # a glob starts like an alias
    assert isinstance(node, YamlMapping)
    return to_plain(node, {})[0]["example"]


def schema_text() -> str:
    """The shipped file: two spaces, the same bytes for the same types."""
    return json.dumps(_with_values(schema()), indent=2, ensure_ascii=False) + "\n"


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


def forms_at(path: Path) -> list[dict[str, Any]]:
    """The schemas of what may stand at ``path``, alternatives apart."""
    nodes = [schema()]
    for step in path:
        nodes = [found for node in nodes for form in forms(node) for found in _below(form, step)]
    return [form for node in nodes for form in forms(node)]


def text_at(path: Path) -> bool | None:
    """Whether text may stand at ``path``; None when anything may, or when nothing is known."""
    found = forms_at(path)
    if any(form.get("type") == "string" or "enum" in form or "const" in form for form in found):
        return True
    return False if found and all("type" in form for form in found) else None


def keys_at(path: Path) -> tuple[str, ...]:
    """Keys that may stand in the mapping at ``path``; empty where names are free."""
    return tuple(
        dict.fromkeys(key for form in forms_at(path) for key in form.get("properties", ()))
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
