"""Whole answers, errors and headers of providers: read, or refused with a ValueError."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.budget import fuzz
from tests.fuzz.inputs import broken_bytes, broken_json
from tests.fuzz.test_events import CALL, USAGE
from tests.gateway.calls import CHAT
from tests.gateway.releases import pinned
from tidegate.base.errors import RequestError
from tidegate.gateway.guard import require
from tidegate.gateway.neutral import AnswerFacts
from tidegate.gateway.plan import SchemaCheck
from tidegate.gateway.providers.anthropic import AnthropicProvider
from tidegate.gateway.providers.openai import OpenAIProvider
from tidegate.gateway.targets import of_status
from tidegate.gateway.wire.upstream import UpstreamReply
from tidegate.release.values import OutputSchema

OPENAI = {
    "id": "1",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "hi"}}],
    "usage": USAGE,
}
TOOLS = {"choices": [{"finish_reason": "tool_calls", "message": {"tool_calls": [CALL]}}]}
EMBEDDINGS = {"data": [{"embedding": [0.1, 0.2], "index": 0}], "usage": {"prompt_tokens": 2}}
ANTHROPIC = {
    "id": "m",
    "content": [
        {"type": "text", "text": "hi"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
    ],
    "stop_reason": "tool_use",
    "usage": {"input_tokens": 3, "output_tokens": 2, "cache_read_input_tokens": 1},
}
ERRORS = [
    {"error": {"message": "no", "type": "invalid_request_error", "code": "bad"}},
    {"error": "no"},
    {"type": "error", "error": {"type": "overloaded_error", "message": "prompt is too long"}},
]
SEEDS: list[Any] = [OPENAI, TOOLS, EMBEDDINGS, ANTHROPIC, *ERRORS]
TOKENS = [
    b'"',
    b"{",
    b"}",
    b"[" * 3000,
    b"null",
    b"\xff",
    b"\\ud800",
    b"1e999",
    b"\\u0000",
    b"9" * 40,
]
BODIES = st.one_of(
    broken_json(SEEDS).map(lambda value: json.dumps(value).encode()),
    broken_bytes([json.dumps(seed).encode() for seed in SEEDS], TOKENS),
    st.binary(max_size=40),
)
PROVIDERS: list[Any] = [OpenAIProvider(), AnthropicProvider()]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("kind", ["chat", "embeddings"])
@fuzz(300)
@given(body=BODIES)
def test_any_answer_is_read_or_refused(provider: Any, kind: str, body: bytes) -> None:
    try:
        facts = provider.facts(kind, body)
    except (ValueError, RecursionError):
        return
    assert facts.finish is None or isinstance(facts.finish, str)
    if facts.usage is not None:
        assert 0 <= facts.usage.cached <= facts.usage.prompt < 1 << 62


@pytest.mark.parametrize("provider", PROVIDERS)
@fuzz(300)
@given(body=BODIES)
def test_any_answer_is_written_for_a_client_of_another_api_or_refused(
    provider: Any, body: bytes
) -> None:
    try:
        said = provider.read(body)
        written = CHAT.write(said, "m")
    except (ValueError, RecursionError):
        return
    assert msgspec.json.decode(written)["object"] == "chat.completion"
    assert OpenAIProvider().facts("chat", written) == AnswerFacts.of(said)


@pytest.mark.parametrize("provider", PROVIDERS)
@fuzz(300)
@given(body=BODIES, status=st.sampled_from([400, 401, 404, 413, 422, 429, 500, 503, 302]))
def test_any_error_is_told_in_bounded_words(provider: Any, body: bytes, status: int) -> None:
    code, message = provider.reason(body)
    error = of_status(status, code, message, None).error("small")
    assert 400 <= error.status < 600
    assert error.code.replace("_", "").replace(".", "").isalnum()
    msgspec.json.encode({"code": error.code, "message": error.message})


@fuzz()
@given(value=st.one_of(st.binary(max_size=40), st.from_regex(rb"[0-9A-Za-z,: -]{0,40}")))
def test_a_retry_after_that_is_passed_on_is_a_header(value: bytes) -> None:
    told = UpstreamReply(429, {b"retry-after": value}).retry_after
    if told is not None:
        assert told.isascii()
        assert told.isprintable()
        assert told.isdigit() or told.endswith("GMT")


CHECK = SchemaCheck(
    OutputSchema(
        file=pinned("s.json", "{}"),
        json_schema={
            "type": "object",
            "properties": {"n": {"type": "integer", "maximum": 9}, "s": {"pattern": "^(a+)+$"}},
            "required": ["n"],
        },
    )
)


@fuzz(300)
@given(
    content=st.one_of(
        broken_json([{"n": 1, "s": "aaa"}, {"n": 10**400}, [[{"n": 1}]]]).map(json.dumps),
        st.text(max_size=30),
        st.sampled_from([None, "[" * 3000, '{"n":1e999}', '{"s":"%s!"}' % ("a" * 40)]),
    )
)
def test_any_content_is_held_against_its_schema(content: str | None) -> None:
    facts = AnswerFacts("stop", True, None, content)
    try:
        require([CHECK], "m", facts)
    except RequestError as error:
        assert (error.status, error.code) == (502, "output_invalid")
        assert len(error.message) < 1000
        CHAT.error_body(error)
