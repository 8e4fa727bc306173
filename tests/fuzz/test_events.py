"""Server-sent events and what both dialects make of them: any bytes, in any pieces."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.budget import fuzz
from tests.fuzz.inputs import broken_bytes, broken_json, pieces_of
from tests.gateway.streams import Heard
from tidegate.gateway.ports import UnreadableEvent
from tidegate.gateway.providers.anthropic import AnthropicProvider
from tidegate.gateway.providers.openai import OpenAIProvider
from tidegate.gateway.wire.sse import EventSplitter, data_of
from tidegate.gateway.wire.upstream import UpstreamFault

STREAMS = [
    b"data: one\n\ndata: two\n\n: ping\n\ndata: [DONE]\n\n",
    b"event: a\r\nid: 1\r\ndata: x\r\ndata: y\r\n\r\nretry: 5\r\n\r\ndata:z\r\n\r\n",
    b"data: a\r\rdata: b\r\r",
]
TOKENS = [b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\n\r", b"data:", b":", b" ", b"\x00", b"\xff"]


@fuzz(400)
@given(
    st.one_of(broken_bytes(STREAMS, TOKENS), st.binary(max_size=40)).flatmap(
        lambda data: st.tuples(st.just(data), pieces_of(data))
    )
)
def test_events_are_the_same_in_any_pieces_and_no_byte_is_lost(
    data: tuple[bytes, list[bytes]],
) -> None:
    one, many = EventSplitter(), EventSplitter()
    whole = one.feed(data[0])
    apart = [event for piece in data[1] for event in many.feed(piece)]
    assert whole == apart
    assert one.rest == many.rest
    assert b"".join(whole) + one.rest == data[0]
    for event in whole:
        said = data_of(event)
        assert said is None or b"\r" not in said


USAGE = {
    "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 1},
}  # fmt: skip
CALL = {
    "index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":'}
}  # fmt: skip


def chunk(delta: Any, finish: str | None = None, **more: Any) -> Any:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "1", "object": "chat.completion.chunk", "choices": [choice], **more}


OPENAI = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "hello"}),
    chunk({"tool_calls": [CALL]}),
    chunk({"refusal": "no", "reasoning_content": "hm", "reasoning": ["hm"]}),
    chunk({}, "stop"),
    {"id": "1", "choices": [], "usage": USAGE},
    {"error": {"message": "overloaded", "type": "server_error", "code": 500}},
]
ANTHROPIC = [
    {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 3}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
    {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}},
    },
    {
        "type": "content_block_delta",
        "index": 1,
        "delta": {"type": "input_json_delta", "partial_json": '{"a":1}'},
    },
    {"type": "content_block_stop", "index": 1},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
    {"type": "ping"},
    {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}},
]


def events_of(seeds: list[Any]) -> st.SearchStrategy[list[bytes]]:
    as_json = broken_json(seeds).map(lambda value: json.dumps(value).encode("utf-8"))
    as_bytes = broken_bytes(
        [json.dumps(seed).encode() for seed in seeds],
        [b'"', b"{", b"}", b"[" * 2000, b"null", b"\xff", b"\\ud800", b"1e999", b"\\u0000", b"-1"],
    )
    data = st.one_of(as_json, as_bytes, st.just(b"[DONE]"))
    return st.lists(data.map(lambda one: b"data: " + one + b"\n\n"), max_size=8)


@pytest.mark.parametrize(
    ("provider", "seeds"), [(OpenAIProvider(), OPENAI), (AnthropicProvider(), ANTHROPIC)]
)
@fuzz(300)
@given(data=st.data(), wants_usage=st.booleans())
def test_any_events_end_in_events_or_in_a_named_fault(
    provider: Any, seeds: list[Any], data: st.DataObject, wants_usage: bool
) -> None:
    reader = Heard(provider, shows_usage=wants_usage)
    out = b""
    try:
        for event in data.draw(events_of(seeds)):
            for one in EventSplitter().feed(event):
                try:
                    out += reader.feed(one)
                except UnreadableEvent:
                    continue  # the stream goes on: one event in it was spoiled
    except UpstreamFault as fault:
        assert fault.code in ("upstream_protocol", "upstream_cut")
    for event in EventSplitter().feed(out):
        said = data_of(event)
        if isinstance(provider, AnthropicProvider):  # what is written here is what is meant here
            assert said is not None
            assert msgspec.json.decode(said)["object"] == "chat.completion.chunk"
    whole = msgspec.json.decode(reader.assembled())
    assert whole["choices"][0]["message"]["content"] == (reader.said.text() or None)
    assert reader.said.finish is None or isinstance(reader.said.finish, str)
    if reader.said.usage is not None:
        usage = reader.said.usage
        assert 0 <= usage.cached <= usage.prompt < 1 << 62
        assert 0 <= usage.reasoning <= usage.completion < 1 << 62
