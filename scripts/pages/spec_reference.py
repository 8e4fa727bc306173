"""``docs/spec-reference.md``: every key of the spec, out of its types."""

from __future__ import annotations

import json
from typing import Any

from tidegate.spec.schema import forms, schema
from tidegate.spec.unbuilt import UNBUILT

HEAD = """# The app spec, key by key

`tidegate.yaml` says everything about an app. Unknown keys are refused; `tidegate check` names every
mistake at once. A duration is written `800ms`, `5s`, `10m`, `1h30m`, `30d`; a share `5%` or `0.05`;
a size `512KiB` or `4MiB`; a switch `on` or `off`. Paths are relative to the folder of
`tidegate.yaml`, with `/`, and never lead out of it.

`${VARIABLE}` and `${VARIABLE:-default}` stand for variables of the environment in any text value;
`$$` stands for a dollar sign. They are bound when the spec is read, except in `base_url`, where
they are bound where the release is served. Never put a key or password into a variable of the
spec: it would be frozen into the release; name a secret instead (`keys: secret:NAME`). Its value
is read where the release is served: from the variable `TIDEGATE_SECRET_NAME` (in capitals, other
signs as `_`), else from the file `.tidegate/secrets/NAME` (mode 600).

Text follows YAML 1.2: `on`, `off`, `yes` and `no` are text, not booleans. Merge keys (`<<`) and
tags are refused; anchors and aliases work within one file.
"""


def page() -> str:
    parts = [HEAD]
    todo: list[tuple[str, dict[str, Any]]] = [("", schema())]
    done: dict[str, str] = {}
    while todo:
        path, node = todo.pop(0)
        title = node["title"]
        if title in done:
            continue
        done[title] = path
        below = [child for key in node["properties"].items() for child in _children(path, *key)]
        # Depth first, so that a section stands before the next of the same level
        todo = below + todo
        parts.append(_section(path, node))
    return "\n".join(parts)


def _children(path: str, key: str, node: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    at = f"{path}.{key}" if path else key
    return [(where, form) for where, form in _objects(at, node) if "properties" in form]


def _objects(path: str, node: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for form in forms(node):
        if "properties" in form:
            found.append((path, form))
        elif (value := _by_name(form)) is not None:
            found += _objects(f"{path}.NAME", value)
        elif isinstance(form.get("items"), dict):
            found += _objects(f"{path}[]", form["items"])
    return found


def _by_name(form: dict[str, Any]) -> dict[str, Any] | None:
    """The schema of the values of a mapping whose keys are free names."""
    for value in form.get("patternProperties", {}).values():
        return dict(value)
    value = form.get("additionalProperties")
    return value if isinstance(value, dict) else None


def _section(path: str, node: dict[str, Any]) -> str:
    lines = [f"## `{path}`" if path else "## The top of the file", ""]
    if path:
        lines += [node.get("description", ""), ""]
    lines += ["| key | type | default | what it says |", "|---|---|---|---|"]
    required = node.get("required", ())
    for key, value in node["properties"].items():
        at = f"{path}.{key}" if path else key
        default = "**required**" if key in required else _default(value)
        lines.append(f"| `{key}` | {_type(value)} | {default} | {_words(at, value)} |")
    return "\n".join([*lines, ""])


def _words(path: str, node: dict[str, Any]) -> str:
    words = node.get("description") or next(
        (form["description"] for form in forms(node) if form.get("description")), ""
    )
    if examples := node.get("examples"):
        words += " For example " + ", ".join(f"`{example}`" for example in examples) + "."
    if one := _UNBUILT.get(path):
        words += f" *Not built yet: {one.instead}.*"
        words += " *A mistake unless `experimental: true`.*" if one.protects else ""
    return _cell(words)


def _pattern(keys: tuple[str, ...]) -> str:
    return ".".join("NAME" if key == "*" else key for key in keys)


_UNBUILT = {_pattern(keys): one for keys, one in UNBUILT.items()}


def _default(node: dict[str, Any]) -> str:
    if "default" not in node or node["default"] is None:
        return ""
    value = node["default"]
    text = value if isinstance(value, str) else json.dumps(value).replace('"', "")
    return f"`{_cell(text)}`"


def _type(node: dict[str, Any]) -> str:
    if node.get("title") in ("share", "size", "switch"):
        return str(node["title"])
    if "anyOf" in node:
        kinds = [_type(form) for form in node["anyOf"] if form.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "$ref" in node:
        found = next(forms(node))
        return "mapping" if "properties" in found else "any"
    if "enum" in node or "const" in node:
        return " \\| ".join(f"`{word}`" for word in node.get("enum", [node.get("const")]))
    if node.get("type") == "array":
        return f"list of {_type(node['items'])}"
    if node.get("type") == "object":
        return f"names to {_type(_by_name(node) or {})}"
    return _NAMED.get(node.get("title") or node.get("type", ""), node.get("title") or "any")


_NAMED = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
}


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
