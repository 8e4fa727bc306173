"""Whatever the body is, it becomes a typed request or a refusal that names the place."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.calls import plans_of
from tidegate.base.errors import RequestError
from tidegate.gateway.admit.run import body_of, find_route
from tidegate.gateway.dialects.openai_chat import OpenAIChat
from tidegate.gateway.dialects.openai_embeddings import OpenAIEmbeddings
from tidegate.gateway.ports import ClientRequest
from tidegate.gateway.wire.http_server import HttpRequest

PLANS = plans_of()
KINDS = st.sampled_from(["chat", "embeddings"])
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["model", "messages", "input", "role", "content", "stream", "tidegate",
                             "max_tokens", "temperature", "x"]), inner, max_size=4),
    ),
    max_leaves=10,
)  # fmt: skip


DIALECTS = {"chat": OpenAIChat(), "embeddings": OpenAIEmbeddings()}


def parsed(body: bytes, kind: str = "chat") -> ClientRequest:
    return DIALECTS[kind].parse(body)


@given(body=st.one_of(st.binary(max_size=60), JSON.map(msgspec.json.encode)), kind=KINDS)
def test_any_body_is_read_or_refused(body: bytes, kind: str) -> None:
    try:
        client = parsed(body, kind)
    except RequestError as error:
        assert (error.status, error.code) in [(400, "json_malformed"), (400, "request_invalid")]  # noqa: PT017 - a body that is read is as good
        return
    assert isinstance(client.model, str)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "json_malformed", None),
        (b"{", "json_malformed", None),
        (b"\xff", "json_malformed", None),
        (b'{"model": "\xff"}', "json_malformed", None),
        (b'{"model": "m", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "json_malformed", None),
        (b"[]", "request_invalid", None),
        (b"null", "request_invalid", None),
        (b"{}", "request_invalid", None),
        (b'{"model": 5}', "request_invalid", "model"),
        (b'{"model": "m", "messages": [{"role": 1}]}', "request_invalid", "messages[0].role"),
        (b'{"model": "m", "messages": null}', "request_invalid", "messages"),
        (b'{"model": "m", "stream": "yes"}', "request_invalid", "stream"),
        (b'{"model": "m", "max_tokens": 1.5}', "request_invalid", "max_tokens"),
        (b'{"model": "m", "tidegate": {"input": {}}}', "request_invalid", "tidegate"),
        (b'{"model": "m", "unread": "\xff"}', "json_malformed", None),
        (b'{"model": "m", "unread": "\xed\xa0\x80"}', "json_malformed", None),
        (b'{"model": "m", "Max_Tokens": 1000000}', "request_invalid", "Max_Tokens"),
        (b'{"model": "m", "MODEL": "other"}', "request_invalid", "MODEL"),
        (b'{"model": "m", "me\xc5\xbfsages": []}', "request_invalid", "me\u017fsages"),
    ],
)
def test_refusals_name_the_place(body: bytes, code: str, param: str | None) -> None:
    with pytest.raises(RequestError) as caught:
        parsed(body)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, param)
    assert len(caught.value.message) < 300


def test_fields_are_kept_as_they_came() -> None:
    client = parsed(b'{"model":"m","later": {"n": 1.10},"later2":null}')
    assert {name: bytes(raw) for name, raw in client.body_fields.items()} == {
        "model": b'"m"', "later": b'{"n": 1.10}', "later2": b"null",
    }  # fmt: skip


def test_of_a_name_that_is_there_twice_one_is_read_and_the_same_is_passed_on() -> None:
    """Otherwise a cap would be held against one and the upstream could read the other."""
    client = parsed(b'{"model":"a","max_tokens":1,"model":"b","max_tokens":9}')
    assert (client.model, client.ask.fields) == ("b", {"max_tokens": b"9"})
    assert {name: bytes(raw) for name, raw in client.body_fields.items()} == {
        "model": b'"b"', "max_tokens": b"9",
    }  # fmt: skip
    (escaped,) = parsed(b'{"model":"a","\\u006dodel":"b"}').body_fields.values()
    assert bytes(escaped) == b'"b"'


def test_routes_are_found_by_name_and_kind() -> None:
    assert find_route(PLANS, "plan", "chat") is PLANS["plan"]
    with pytest.raises(RequestError) as unknown:
        find_route(PLANS, "plam", "chat")
    assert (unknown.value.status, unknown.value.code) == (404, "route_unknown")
    assert "'plan'" in unknown.value.cure
    with pytest.raises(RequestError) as wrong:
        find_route(PLANS, "embed", "chat")
    assert (wrong.value.status, wrong.value.code) == (400, "route_kind_mismatch")


@given(st.text(max_size=300))
def test_any_unknown_route_is_a_bounded_refusal(name: str) -> None:
    if name not in PLANS:
        with pytest.raises(RequestError) as caught:
            find_route(PLANS, name, "chat")
        assert len(caught.value.message) < 2500


def test_a_body_that_was_too_large_or_is_packed_is_refused() -> None:
    request = HttpRequest()
    request.too_large = True
    with pytest.raises(RequestError) as caught:
        body_of(request, 100)
    assert (caught.value.status, caught.value.code) == (413, "body_too_large")
    request = HttpRequest()
    request._headers[b"content-encoding"] = b"gzip"
    with pytest.raises(RequestError) as caught:
        body_of(request, 100)
    assert (caught.value.status, caught.value.code) == (415, "encoding_unsupported")
    request._headers[b"content-encoding"] = b"Identity"
    assert body_of(request, 100) == b""
