"""What the simulated model says: fixed, echoed or generated; the same seed, the same text."""

from __future__ import annotations

import base64
import hashlib
import random
import re
from collections.abc import Callable
from typing import Any

import msgspec
import numpy

from tidegate.base import canonical_json

Json = dict[str, Any]

_TOKEN = re.compile(r"\s*\S+|\s+$")
_VOCABULARY = (
    *("walk", "rest", "squat", "plank", "bench", "steady", "easy", "light", "strong", "week"),
    *("day", "minute", "hour", "water", "sleep", "stretch", "warm", "cool", "knee", "back"),
    *("core", "focus", "breathe", "slow", "repeat", "set", "goal", "plan", "start", "finish"),
)


class Echo(msgspec.Struct, frozen=True):
    """Answers with the text of the last user message."""


class Words(msgspec.Struct, frozen=True):
    """Answers with ``tokens`` generated words, one token each."""

    tokens: int = 16


class ToolCall(msgspec.Struct, frozen=True):
    """Asks for one tool. ``arguments`` is a JSON value, or text that is sent as it is."""

    name: str
    arguments: Json | str = msgspec.field(default_factory=dict)

    @property
    def text(self) -> str:
        if isinstance(self.arguments, str):
            return self.arguments
        return canonical_json(self.arguments).decode()


ScriptedAnswer = str | Echo | Words | ToolCall | Callable[[Json], "str | ToolCall"]


def split_tokens(text: str) -> list[str]:
    """``text`` in pieces of one word with the space before it; joined they give it back."""
    return _TOKEN.findall(text)


def text_of(content: object) -> str:
    """The text of a message's ``content``: a string, or parts of which the text ones count."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def compose(answer: ScriptedAnswer, request: Json, seed: int) -> str | ToolCall:
    """The answer to ``request``: a text or one tool call.

    A fixed text, a tool call and a callable are obeyed as they are. Generated and echoed answers
    follow the request: a forced ``tool_choice`` gives a tool call, and a ``response_format`` with
    a JSON Schema the smallest instance that fits.
    """
    if isinstance(answer, str | ToolCall):
        return answer
    if callable(answer):
        return answer(request)
    forced = _forced_tool(request)
    if forced is not None:
        return forced
    text = _echo(request) if isinstance(answer, Echo) else _words(answer.tokens, seed)
    form = request.get("response_format") or {}
    match form.get("type"):
        case "json_schema":
            schema = (form.get("json_schema") or {}).get("schema") or {}
            return msgspec.json.encode(instance_of(schema)).decode()
        case "json_object":
            return msgspec.json.encode({"answer": text}).decode()
    return text


def _echo(request: Json) -> str:
    users = [m for m in request.get("messages", ()) if m.get("role") == "user"]
    return text_of(users[-1].get("content")) if users else ""


def _words(tokens: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(_VOCABULARY, k=tokens))


def _forced_tool(request: Json) -> ToolCall | None:
    """OpenAI: ``required`` or ``{function: {name}}``; Anthropic: ``{type: any | tool, name}``."""
    choice, tools = request.get("tool_choice"), request.get("tools") or []
    if not tools or choice in (None, "auto", "none"):
        return None
    name = None
    if isinstance(choice, dict):
        if choice.get("type") in ("auto", "none"):
            return None
        name = choice.get("name") or (choice.get("function") or {}).get("name")
    declared = [tool.get("function") or tool for tool in tools]
    tool = next((t for t in declared if t.get("name") == name), declared[0])
    schema = tool.get("parameters") or tool.get("input_schema") or {}
    return ToolCall(tool.get("name", ""), instance_of(schema))


_SMALLEST: dict[str, Any] = {
    "string": "text",
    "integer": 1,
    "number": 1.0,
    "boolean": True,
    "null": None,
}


def instance_of(schema: Json) -> Any:
    """A small instance of the plain part of JSON Schema: const, enum, type, properties, items,
    minItems, minLength, minimum, and local ``$ref``."""
    return _instance(schema, schema)


def _instance(schema: Json, root: Json) -> Any:
    if "$ref" in schema:
        target: Any = root
        for step in str(schema["$ref"]).lstrip("#/").split("/"):
            target = target[step]
        return _instance(target, root)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return _instance(schema[key][0], root)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        wanted = schema.get("required", list(schema.get("properties", {})))
        fields = schema.get("properties", {})
        return {name: _instance(fields.get(name, {}), root) for name in wanted}
    if kind == "array":
        return [_instance(schema.get("items", {}), root)] * max(1, schema.get("minItems", 1))
    if kind in ("integer", "number"):
        return max(_SMALLEST[kind], schema.get("minimum", _SMALLEST[kind]))
    if kind == "string":
        return str(_SMALLEST[kind]).ljust(schema.get("minLength", 0), ".")
    return _SMALLEST.get(kind)


def vector_of(text: str, dimensions: int) -> numpy.ndarray:
    """A unit vector (float32) that depends on ``text`` alone: SHAKE-256 bytes, centred."""
    raw = hashlib.shake_256(text.encode()).digest(dimensions * 2)
    values = numpy.frombuffer(raw, dtype="<u2").astype("<f4") - 32767.5
    return values / numpy.float32(numpy.linalg.norm(values))


def encode_vector(vector: numpy.ndarray, form: str) -> object:
    """``vector`` as the API sends it: a list of floats, or base64 of little-endian float32."""
    if form == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return vector.tolist()
