"""The Messages API is spoken to clients as chat completions, and back."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.streams import Heard, encoded, whole
from tidegate.base.errors import RequestError
from tidegate.base.money import Usage
from tidegate.gateway.formats.openai import read_conversation
from tidegate.gateway.ports import UnreadableEvent
from tidegate.gateway.providers.anthropic import AnthropicProvider, split_messages
from tidegate.gateway.wire.sse import EventSplitter
from tidegate.gateway.wire.upstream import UpstreamFault

PROVIDER = AnthropicProvider()


def event(kind: str, **more: object) -> bytes:
    data = msgspec.json.encode({"type": kind, **more})
    return f"event: {kind}\n".encode() + b"data: " + data + b"\n\n"


STREAM = [
    event("message_start", message={"id": "m1", "usage": {
        "input_tokens": 5, "output_tokens": 1, "cache_read_input_tokens": 3,
        "cache_creation_input_tokens": 2}}),
    event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    event("ping"),
    event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hé"}),
    event("content_block_delta", index=0, delta={"type": "text_delta", "text": "llo"}),
    event("content_block_stop", index=0),
    event("content_block_start", index=1, content_block={
        "type": "tool_use", "id": "t1", "name": "find", "input": {}}),
    event("content_block_delta", index=1, delta={"partial_json": '{"q"'}),
    event("content_block_delta", index=1, delta={"partial_json": ":1}"}),
    event("content_block_stop", index=1),
    event("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 9}),
    event("message_stop"),
]  # fmt: skip


def read(stream: list[bytes], *, usage: bool = True) -> tuple[Heard, list[dict]]:  # type: ignore[type-arg]
    reader = Heard(PROVIDER, shows_usage=usage)
    out = EventSplitter().feed(b"".join(reader.feed(one) for one in stream))
    return reader, [msgspec.json.decode(one[6:]) for one in out]


def test_a_stream_becomes_chunks() -> None:
    reader, chunks = read(STREAM)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    assert "".join(delta.get("content") or "" for delta in deltas) == "Héllo"
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert (calls[0]["id"], calls[0]["function"]["name"]) == ("t1", "find")
    assert "".join(call["function"]["arguments"] for call in calls) == '{"q":1}'
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["prompt_tokens"] == 10
    assert reader.said.usage == Usage(prompt=10, completion=9, cached=3)
    assert (reader.said.done, reader.said.finish, reader.said.tool_calls) == (
        True,
        "tool_calls",
        True,
    )
    assert {chunk["id"] for chunk in chunks} == {"m1"}
    assert len(read(STREAM, usage=False)[1]) == len(chunks) - 1


@given(st.lists(st.integers(0, 2000), max_size=10))
def test_any_cutting_reads_the_same(places: list[int]) -> None:
    data = b"".join(STREAM)
    borders = [0, *sorted(place % len(data) for place in places), len(data)]
    splitter, reader = EventSplitter(), Heard(PROVIDER, shows_usage=True)
    for a, b in itertools.pairwise(borders):
        for one in splitter.feed(data[a:b]):
            reader.feed(one)
    said, all_of_it = reader.said, read(STREAM)[0].said
    assert (said.text(), said.usage, said.finish) == (
        all_of_it.text(),
        all_of_it.usage,
        all_of_it.finish,
    )


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (event("error", error={"type": "overloaded_error", "message": "busy"}), "upstream_cut"),
        (event("error"), "upstream_cut"),
    ],
)
def test_an_error_event_is_a_fault(bad: bytes, code: str) -> None:
    with pytest.raises(UpstreamFault) as caught:
        read([bad])
    assert caught.value.code == code


@pytest.mark.parametrize(
    "bad",
    [
        b"data: {broken\n\n",
        b"data: []\n\n",
        event("message_start", message={"no": "id"}),
        event("message_start", message=None),
        event("message_start", message="text"),
        event("content_block_delta", delta=5),
    ],
)
def test_an_event_that_is_none_of_the_api_is_unreadable(bad: bytes) -> None:
    with pytest.raises(UnreadableEvent):
        read([bad])


def test_a_thought_shows_life_and_is_no_content() -> None:
    reader = Heard(PROVIDER)
    thought = event(
        "content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "hmm"}
    )
    assert reader.feed(thought) == b""
    assert (reader.said.alive, reader.said.content, reader.said.chars) == (True, False, 3)


@given(st.one_of(st.binary(max_size=40), st.sampled_from([one[:40] for one in STREAM])))
def test_any_event_is_read_or_unreadable_or_a_fault(data: bytes) -> None:
    try:
        Heard(PROVIDER).feed(b"data: " + data + b"\n\n")
    except (UpstreamFault, UnreadableEvent) as error:
        assert str(error)  # noqa: PT017 - no error is as good


def split(messages: list[dict[str, object]]) -> tuple[Any, list[dict[str, Any]]]:
    read = read_conversation({"messages": msgspec.json.encode(messages)})
    return split_messages(read.messages)


def test_messages_are_translated() -> None:
    system, messages = split(
        [
            {"role": "system", "content": "be kind"},
            {"role": "developer", "content": [{"type": "text", "text": "and short"}]},
            {"role": "user", "content": "hi"},
            {"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                {"type": "image_url", "image_url": {"url": "https://x/y.png"}}]},
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "t1", "function": {"name": "find", "arguments": '{"q":1}'}}]},
            {"role": "tool", "tool_call_id": "t1", "content": "found"},
            {"role": "user", "content": "thanks"},
        ]
    )  # fmt: skip
    assert system == "be kind\n\nand short"
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert [block["type"] for block in messages[0]["content"]] == ["text", "image", "image"]
    assert messages[0]["content"][1]["source"] == {
        "type": "base64", "media_type": "image/png", "data": "AAAA",
    }  # fmt: skip
    assert messages[1]["content"] == [
        {"type": "tool_use", "id": "t1", "name": "find", "input": {"q": 1}}
    ]
    assert messages[2]["content"] == [
        {"type": "tool_result", "tool_use_id": "t1", "content": "found"},
        {"type": "text", "text": "thanks"},
    ]


@given(
    st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "assistant"]), "content": st.text(min_size=1)}
        ),
        max_size=8,
    )
)
def test_no_text_is_lost_and_roles_alternate(messages: list[dict[str, str]]) -> None:
    _, out = split(messages)
    assert all(a["role"] != b["role"] for a, b in itertools.pairwise(out))
    said = [(m["role"], block["text"]) for m in out for block in m["content"]]
    assert said == [(m["role"], m["content"]) for m in messages]


def encode(**fields: object) -> dict[str, object]:
    raw = {name: msgspec.json.encode(value) for name, value in fields.items()}
    raw.setdefault("messages", b'[{"role":"user","content":"hi"}]')
    return msgspec.json.decode(encoded(PROVIDER, "m", raw).body)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({}, {"max_tokens": 4096}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 6}, {"max_tokens": 6}),
        ({"stop": "x"}, {"stop_sequences": ["x"]}),
        ({"stop": ["x", "y"]}, {"stop_sequences": ["x", "y"]}),
        ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}),
        ({"tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}},
         {"tool_choice": {"type": "tool", "name": "f"}}),
        ({"tools": [{"type": "function", "function": {"name": "f", "description": "d"}}]},
         {"tools": [{"name": "f", "description": "d",
                     "input_schema": {"type": "object", "properties": {}}}]}),
        ({"n": 1, "logprobs": False, "response_format": {"type": "text"}, "user": "u"}, {}),
        ({"response_format": None, "seed": 1, "n": None, "logit_bias": None}, {}),
    ],
)  # fmt: skip
def test_parameters(fields: dict[str, object], sent: dict[str, object]) -> None:
    found = encode(**fields)
    for name in ("model", "stream", "messages"):
        del found[name]
    assert found == {"max_tokens": 4096, **sent}


@pytest.mark.parametrize(
    "fields",
    [{"n": 2}, {"logprobs": True}, {"audio": {}}, {"response_format": {"type": "json_schema"}},
     {"parameter_of_tomorrow": 1}],
)  # fmt: skip
def test_what_has_no_counterpart_is_refused_by_name(fields: dict[str, object]) -> None:
    with pytest.raises(RequestError) as caught:
        encode(**fields)
    assert caught.value.code == "parameter_unsupported"
    assert caught.value.param == next(iter(fields))


def test_a_whole_answer_becomes_a_chat_completion() -> None:
    body = msgspec.json.encode(
        {
            "id": "m1",
            "content": [
                {"type": "thinking", "thinking": "hm"},
                {"type": "text", "text": "Hello"},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
            ],
            "stop_reason": "tool_use",
            "usage": {"input_tokens": 3, "output_tokens": 4},
        }
    )
    passed, facts = whole(PROVIDER, body)
    message = msgspec.json.decode(passed)["choices"][0]["message"]
    assert message["content"] == "Hello"
    assert message["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a":1}'}
    assert (facts.finish, facts.complete, facts.tool_calls) == ("tool_calls", False, True)
    assert facts.usage == Usage(prompt=3, completion=4)


@pytest.mark.parametrize(
    ("reason", "finish", "complete"),
    [("end_turn", "stop", True), ("max_tokens", "length", False), ("stop_sequence", "stop", True),
     ("refusal", "content_filter", False), ("pause_turn", "pause_turn", False),
     (None, None, False)],
)  # fmt: skip
def test_finish_reasons(reason: str | None, finish: str | None, complete: bool) -> None:
    body = msgspec.json.encode({"id": "m", "content": [], "stop_reason": reason})
    _, facts = whole(PROVIDER, body)
    assert (facts.finish, facts.complete) == (finish, complete)
