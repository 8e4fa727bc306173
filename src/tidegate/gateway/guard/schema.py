"""Hold an answer's text against the route's JSON Schema (jsonschema-rs, draft as declared)."""

from __future__ import annotations

import jsonschema_rs
import msgspec

from tidegate.base.errors import RequestError
from tidegate.gateway.values import Answer
from tidegate.release.values import OutputSchema


class OutputGuard:
    """``check(answer)`` raises RequestError ``output_invalid`` naming the first wrong place."""

    def __init__(self, schema: OutputSchema) -> None:
        self._validator = jsonschema_rs.validator_for(schema.json_schema)
        self._path = schema.file.path

    def check(self, answer: Answer) -> None:
        fault = self.fault(answer)
        if fault is not None:
            raise RequestError(
                502,
                "output_invalid",
                f"the answer of model {answer.model!r} {fault}",
                cure="retry, raise caps.output_tokens, or use a model that keeps to schemas",
            )

    def fault(self, answer: Answer) -> str | None:
        """In what the answer does not meet the schema; None when it does."""
        if answer.tool_calls:
            return None  # a request for a tool is not the answer yet
        try:
            value = msgspec.json.decode(answer.content or "")
        except (msgspec.DecodeError, RecursionError) as error:
            why = "the answer was cut short" if answer.finish == "length" else str(error)
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
