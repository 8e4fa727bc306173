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
        if answer.tool_calls:
            return  # a request for a tool is not the answer yet
        try:
            value = msgspec.json.decode(answer.content or "")
        except (msgspec.DecodeError, RecursionError) as error:
            why = "the answer was cut short" if answer.finish == "length" else str(error)
            raise self._invalid(answer, f"is not JSON: {why}") from None
        if self._validator.is_valid(value):
            return
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            place = "/".join(str(part) for part in error.instance_path) or "the top"
            raise self._invalid(answer, f"breaks it at {place}: {error.message[:200]}") from None

    def _invalid(self, answer: Answer, what: str) -> RequestError:
        return RequestError(
            502,
            "output_invalid",
            f"the answer of model {answer.model!r} does not meet {self._path}: it {what}",
            cure="retry, raise caps.output_tokens, or use a model that keeps to schemas",
        )
