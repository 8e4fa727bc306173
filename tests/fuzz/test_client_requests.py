"""From the JSON body of a client to the bytes that a provider gets: any body, both dialects."""

from __future__ import annotations

import json
from typing import Any

import h11
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.budget import fuzz
from tests.fuzz.inputs import broken_bytes, broken_json
from tests.gateway.calls import CHAT as CHAT_API
from tests.gateway.calls import chat_request, new_journal, plans_of, within
from tests.gateway.loops import run
from tests.gateway.releases import sample_release
from tidegate.base.errors import RequestError
from tidegate.gateway.admit.headers import bearer, read_context
from tidegate.gateway.admit.run import find_route
from tidegate.gateway.call.run import _Asking
from tidegate.gateway.dialects.openai_embeddings import OpenAIEmbeddings
from tidegate.gateway.ports import EncodedRequest
from tidegate.gateway.render import render
from tidegate.gateway.targets import make_target
from tidegate.gateway.values import Request
from tidegate.gateway.wire.http_server import HttpRequest
from tidegate.switches.rules import KeyRecord, KeyTable

PLANS = plans_of()
MODELS = sample_release("http://127.0.0.1:9/v1").models
TARGETS = [make_target(MODELS[name], "http://h/v1", "k") for name in ("small", "claude")]
PNG = "data:image/png;base64,AAAA"
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}
CALLS = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}]
CHAT: list[Any] = [
    {"model": "plain", "messages": [{"role": "user", "content": "hi"}], "stream": True},
    {
        "model": "capped",
        "max_tokens": 500,
        "max_completion_tokens": 5,
        "messages": [
            {"role": "system", "content": "be brief " * 4},
            {"role": "user", "content": [{"type": "text", "text": "look"},
                                         {"type": "image_url", "image_url": {"url": PNG}}]},
            {"role": "assistant", "content": None, "tool_calls": CALLS},
            {"role": "tool", "tool_call_id": "c", "content": "done"},
        ],
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "stop": ["x"],
        "temperature": 0.2,
        "response_format": {"type": "text"},
        "n": 1,
        "stream_options": {"include_usage": True},
    },
    {
        "model": "plan",
        "messages": [],
        "tidegate": {"inputs": {"goal": "x", "level": "athlete"}, "journey": "get-plan"},
    },
]  # fmt: skip
EMBED: list[Any] = [
    {"model": "embed", "input": "a"},
    {"model": "embed", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 3},
    {"model": "embed", "input": [[1, 2], [3]]},
]
TOKENS = [
    b'"model":"plain",', b'"max_tokens":9,', b'"Max_Tokens":9,', b"[" * 3000, b"{", b"}", b'"',
    b"\xff",
    b"\\ud800", b"1e999", b"-1", b"\\u0000", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"9" * 40, b"/*x*/",
    b'"tidegate":{},', b"NaN", b'"x":1e999,', b'"content":"a",',
    b'"max_tokens":%b,' % (b"9" * 400),
]  # fmt: skip


def bodies(seeds: list[Any]) -> st.SearchStrategy[bytes]:
    return st.one_of(
        broken_json(seeds).map(lambda value: json.dumps(value).encode()),
        broken_json(seeds).map(
            lambda v: json.dumps(v, ensure_ascii=False).encode(errors="replace")
        ),
        broken_bytes([json.dumps(seed).encode() for seed in seeds], TOKENS),
        st.binary(max_size=40),
    )


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({name for name, _ in pairs}) == len(pairs), "a name is there twice"
    return dict(pairs)


@pytest.mark.parametrize("kind", ["chat", "embeddings"])
@pytest.mark.parametrize("target", TARGETS, ids=["openai", "anthropic"])
@fuzz(150)
@given(data=st.data())
def test_any_body_is_refused_or_sent_as_one_sound_request(
    kind: str, target: Any, data: st.DataObject
) -> None:
    dialect = CHAT_API if kind == "chat" else OpenAIEmbeddings()
    sent = data.draw(bodies(CHAT if kind == "chat" else EMBED))

    async def main() -> tuple[Request, EncodedRequest]:
        client = dialect.parse(sent)
        plan = find_route(PLANS, client.model, dialect.kind)
        request = msgspec.structs.replace(
            chat_request(plan),
            dialect=dialect,
            ask=client.ask,
            body_fields=client.body_fields,
            extension=client.extension,
        )
        ask = (await render(request)).ask
        asking = _Asking(new_journal(), ask, plan.terms, within())
        return request, asking._encode(target, ask.stream)

    try:
        asked, encoded = run(main())
    except RequestError as error:
        assert error.status in (400, 404, 413)
        assert error.cure
        dialect.error_body(error)
        return
    dialect.asked_output(asked.ask.fields)
    top = json.loads(encoded.body)
    for name in top:  # what the upstream may read is what was looked at here
        assert name.casefold() not in ("tidegate",)
    assert top["model"] == target.model.upstream
    assert top.get("stream", False) is asked.ask.stream
    if asked.plan.route.caps.output_tokens is not None:
        for name in ("max_tokens", "max_completion_tokens"):
            assert 0 <= (top.get(name) or 0) <= asked.plan.route.caps.output_tokens
    names = [name for name, _ in json.loads(encoded.body, object_pairs_hook=list)]
    assert len(set(names)) == len(names), "a field is there twice"
    reader: Any = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    reader.receive_data(target.request(encoded, target.keys.ready(0.0)[0]))
    request = reader.next_event()
    assert isinstance(request, h11.Request)
    body = b""
    while isinstance(event := reader.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert (body, reader.trailing_data[0]) == (encoded.body, b"")


HEX = "0123456789abcdef"
PARENT = b"00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-01"
NAMES = [b"traceparent", b"baggage", b"x-tidegate-journey", b"authorization", b"cache-control"]
VALUES = [
    PARENT, b"tidegate.journey=get-plan;p=1,a=b", b"Bearer tg-000000000000-" + b"x" * 43,
    b"get-plan", b"no-store",
]  # fmt: skip


@fuzz(400)
@given(
    headers=st.dictionaries(
        st.sampled_from(NAMES),
        broken_bytes(VALUES, [b"-", b"%", b"%ff", b"=", b",", b"\xff", b"0" * 32, b"Bearer", b" "]),
    )
)
def test_any_header_is_read_or_ignored(headers: dict[bytes, bytes]) -> None:
    request = HttpRequest()
    request._headers = headers
    context = read_context(request)
    for value, size in ((context.trace, 32), (context.parent, 16)):
        assert value is None or (len(value) == size and set(value) <= set(HEX))
    assert (context.trace is None) == (context.parent is None)
    table = KeyTable((KeyRecord(id="0" * 12, name="k", hash=b"h"),))
    assert table.find(bearer(request.header(b"authorization")) or "", 0.0) in (
        "key_missing",
        "key_invalid",
    )
