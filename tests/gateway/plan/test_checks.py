"""An answer meets its route's schema, or is refused naming the place."""

from __future__ import annotations

import msgspec
import pytest

from tests.gateway.calls import ANSWER
from tests.gateway.releases import SCHEMA, pinned
from tidegate.base.errors import RequestError
from tidegate.gateway.guard import require
from tidegate.gateway.plan import SchemaCheck
from tidegate.gateway.values import Answer
from tidegate.release.values import OutputSchema

CHECK = SchemaCheck(OutputSchema(file=pinned("s.json", "{}"), json_schema=SCHEMA))


def check(answer: Answer) -> None:
    require([CHECK], answer.model, answer.facts)


@pytest.mark.parametrize("content", ['{"n": 1}', ' {"n": -5} '])
def test_what_meets_the_schema_passes(content: str) -> None:
    check(msgspec.structs.replace(ANSWER, content=content))


def test_a_request_for_a_tool_is_not_the_answer_yet() -> None:
    check(msgspec.structs.replace(ANSWER, content=None, tool_calls=True))


@pytest.mark.parametrize(
    ("content", "finish", "words"),
    [
        (None, "stop", "is not JSON"),
        ("", "stop", "is not JSON"),
        ('{"n": 1', "length", "cut short"),
        ('```json\n{"n": 1}\n```', "stop", "is not JSON"),
        ('{"n": "1"}', "stop", "at n"),
        ("{}", "stop", "at the top"),
        ('{"n": 1, "m": 2}', "stop", "at the top"),
        ("[" * 100_000, "stop", "is not JSON"),
    ],
)
def test_what_does_not_is_refused(content: str | None, finish: str, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        check(msgspec.structs.replace(ANSWER, content=content, finish=finish))
    assert (caught.value.status, caught.value.code) == (502, "output_invalid")
    assert words in caught.value.message
    assert len(caught.value.message) < 500
