"""Checks of an answer before it counts: the interface, and the route's output schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import jsonschema_rs
import msgspec

from tidegate.gateway.neutral import AnswerFacts
from tidegate.release import OutputSchema

OUTPUT_INVALID = "output_invalid"
"""Code of an answer that fails a check."""


class AnswerCheck(Protocol):
    """One thing that an answer must hold to. Both functions say in what an answer fails, in words
    that follow "the answer of model X", and give None where it does not."""

    name: str
    window: int
    """Characters of a stream that are looked at together; 0: only whole answers are."""

    def whole(self, said: AnswerFacts) -> str | None: ...

    def part(self, text: str) -> str | None:
        """Of the last ``window`` characters of a stream, before the newest of them are sent."""
        ...


class SchemaCheck:
    """The answer's text against the route's JSON Schema (jsonschema-rs, draft as declared)."""

    name = "output"
    window = 0

    def __init__(self, schema: OutputSchema) -> None:
        self._validator = jsonschema_rs.validator_for(schema.json_schema)
        self._path = schema.file.path

    def whole(self, said: AnswerFacts) -> str | None:
        if said.tool_calls:
            return None  # a request for a tool is not the answer yet
        try:
            value = msgspec.json.decode(said.text or "")
        except (msgspec.DecodeError, RecursionError) as error:
            why = "the answer was cut short" if said.finish == "length" else str(error)
            return f"does not meet {self._path}: it is not JSON: {why}"
        if self._validator.is_valid(value):
            return None
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            place = "/".join(str(part) for part in error.instance_path) or "the top"
            words = f"breaks it at {place}: {error.message[:200]}"
            return f"does not meet {self._path}: it {words}"
        return None

    def part(self, text: str) -> str | None:
        return None


def broken(checks: Sequence[AnswerCheck], said: AnswerFacts) -> str | None:
    """In what the answer fails the first check that it fails; None when it holds to all."""
    for check in checks:
        fault = check.whole(said)
        if fault is not None:
            return fault
    return None
