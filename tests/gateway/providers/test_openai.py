"""Chunks pass as they came; what they say is read whatever pieces they come in."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.streams import Heard, encoded, whole
from tidegate.base.money import Usage
from tidegate.gateway.ports import UnreadableEvent
from tidegate.gateway.providers.openai import OpenAIProvider
from tidegate.gateway.wire.sse import EventSplitter
from tidegate.gateway.wire.upstream import UpstreamFault

PROVIDER = OpenAIProvider()
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}


def event(*choices: dict[str, object], **more: object) -> bytes:
    return b"data: " + msgspec.json.encode({"id": "c1", "choices": choices, **more}) + b"\n\n"


def piece(text: str, index: int = 0) -> dict[str, object]:
    return {"index": index, "delta": {"content": text}, "finish_reason": None}


def end(reason: str | None, index: int = 0) -> dict[str, object]:
    return {"index": index, "delta": {}, "finish_reason": reason}


STREAM = [
    event({"index": 0, "delta": {"role": "assistant", "content": ""}}),
    b": heartbeat\n\n",
    event(piece("Hé")),
    event(piece("llo 😀")),
    event(end("stop")),
    event(usage=USAGE),
    b"data: [DONE]\n\n",
]


def read(stream: list[bytes], *, usage: bool = False) -> tuple[Heard, bytes]:
    reader = Heard(PROVIDER, shows_usage=usage)
    return reader, b"".join(reader.feed(one) for one in stream)


def test_a_stream_is_read_and_passed_on_as_it_came() -> None:
    reader, out = read(STREAM)
    assert out == b"".join(STREAM[:5]), "usage was not asked for; [DONE] is the gateway's to say"
    assert (reader.said.text(), reader.said.finish, reader.said.done) == ("Héllo 😀", "stop", True)
    assert reader.said.usage == Usage(prompt=5, completion=2, cached=3)
    assert not reader.said.tool_calls
    assert read(STREAM, usage=True)[1] == b"".join(STREAM[:6])
    kept = msgspec.json.decode(reader.assembled())
    assert kept["choices"][0]["message"] == {"role": "assistant", "content": "Héllo 😀"}
    assert kept["usage"]["prompt_tokens"] == 5


@given(st.lists(st.integers(0, 1000), max_size=10), st.booleans())
def test_any_cutting_reads_the_same(places: list[int], crlf: bool) -> None:
    data = b"".join(STREAM)
    if crlf:
        data = data.replace(b"\n", b"\r\n")
    borders = [0, *sorted(place % len(data) for place in places), len(data)]
    splitter, reader = EventSplitter(), Heard(PROVIDER, shows_usage=True)
    for a, b in itertools.pairwise(borders):
        for one in splitter.feed(data[a:b]):
            reader.feed(one)
    assert (reader.said.text(), reader.said.finish, reader.said.done) == ("Héllo 😀", "stop", True)
    assert reader.said.usage == Usage(prompt=5, completion=2, cached=3)


def test_content_begins_with_content() -> None:
    reader, _ = read(STREAM[:2])
    assert not reader.said.content
    reader.feed(STREAM[2])
    assert reader.said.content


@pytest.mark.parametrize(
    "delta",
    [
        {"refusal": "no"},
        {"tool_calls": [{"index": 0}]},
    ],
)
def test_other_kinds_of_content(delta: dict[str, object]) -> None:
    reader, _ = read([event({"index": 0, "delta": delta})])
    assert reader.said.content
    assert reader.said.alive


@pytest.mark.parametrize("delta", [{"reasoning_content": "hmm"}, {"reasoning": "hmm"}])
def test_a_thought_shows_life_and_is_no_content(delta: dict[str, object]) -> None:
    reader, out = read([event({"index": 0, "delta": delta})])
    assert (reader.said.alive, reader.said.content, reader.said.pieces, reader.said.chars) == (
        True,
        False,
        1,
        3,
    )
    assert out, "it is passed on once there is content"


def test_tool_calls_are_put_together() -> None:
    parts = [
        {"index": 0, "id": "a", "function": {"name": "find", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"q":'}},
        {"index": 1, "id": "b", "function": {"name": "add", "arguments": "{}"}},
        {"index": 0, "function": {"arguments": "1}"}},
    ]
    reader, _ = read([event({"index": 0, "delta": {"tool_calls": [part]}}) for part in parts])
    assert reader.said.tool_calls
    message = msgspec.json.decode(reader.assembled())["choices"][0]["message"]
    assert message["content"] is None
    assert [(c["id"], c["function"]) for c in message["tool_calls"]] == [
        ("a", {"name": "find", "arguments": '{"q":1}'}),
        ("b", {"name": "add", "arguments": "{}"}),
    ]


def test_usage_on_a_chunk_with_choices_is_read_and_the_chunk_passes() -> None:
    last = event(end("stop"), usage=USAGE)
    reader, out = read([event(piece("x")), last])
    assert out.endswith(last)
    assert reader.said.usage == Usage(prompt=5, completion=2, cached=3)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}, {"total_tokens": 3}])
def test_usage_without_numbers_is_unknown_and_not_zero(usage: dict[str, object] | None) -> None:
    assert read([event(end("stop"), usage=USAGE), event(usage=usage)])[0].said.usage is not None
    assert read([event(end("stop"), usage=usage)])[0].said.usage is None
    body = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": usage}
    assert whole(PROVIDER, msgspec.json.encode(body))[1].usage is None


def test_an_empty_finish_reason_is_none_yet() -> None:
    reader, _ = read([event({**piece("x"), "finish_reason": ""})])
    assert reader.said.finish is None, "a stream cut here must not look finished"


@pytest.mark.parametrize(
    ("ends", "finish"),
    [
        ([("stop", 0)], None),
        ([("stop", 0), ("stop", 1)], "stop"),
        ([("stop", 1), ("length", 0)], "length"),
        ([("length", 1), ("stop", 0)], "length"),
    ],
)
def test_a_stream_of_two_choices_ends_with_both(
    ends: list[tuple[str, int]], finish: str | None
) -> None:
    both = [event(piece("a", 0)), event(piece("b", 1))]
    reader, _ = read(both + [event(end(reason, index)) for reason, index in ends])
    assert reader.said.finish == finish
    assert reader.said.text() == "a"


@pytest.mark.parametrize(
    "bad",
    [
        b"data: {not json\n\n",
        b"data: \xff\n\n",
        b'data: "text"\n\n',
        b'data: {"choices": "x"}\n\n',
        b"data: " + b"[" * 100_000 + b"\n\n",
    ],
)
def test_an_event_that_is_no_chunk_is_unreadable_and_changes_nothing(bad: bytes) -> None:
    reader, _ = read([STREAM[2]])
    text, pieces = reader.said.text(), reader.said.pieces
    with pytest.raises(UnreadableEvent):
        reader.feed(bad)
    assert (reader.said.text(), reader.said.pieces, reader.said.finish) == (text, pieces, None)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b'data: {"error": {"message": "overloaded", "code": 500}}\n\n', None),
        (b'data: {"error": {"message": "no", "code": "content_filter"}}\n\n', "content_filter"),
        (b'data: {"error": "overloaded"}\n\n', None),
        (b'event: error\ndata: {"message": "overloaded"}\n\n', None),
    ],
)
def test_an_error_inside_a_stream_is_a_fault(bad: bytes, said: str | None) -> None:
    with pytest.raises(UpstreamFault) as caught:
        read([STREAM[2], bad])
    assert (caught.value.code, caught.value.said) == ("upstream_cut", said)


@pytest.mark.parametrize("empty", [b"data:\n\n", b"data: \n\n", b"event: x\ndata:\n\n"])
def test_an_event_without_data_is_held_back_and_no_fault(empty: bytes) -> None:
    reader = Heard(PROVIDER)
    assert reader.feed(empty) == b""


@given(st.binary(max_size=60))
def test_any_event_is_read_or_unreadable_or_a_fault(data: bytes) -> None:
    reader = Heard(PROVIDER)
    try:
        out = reader.feed(b"data: " + data + b"\n\n")
    except (UpstreamFault, UnreadableEvent):
        return
    assert out in (b"", b"data: " + data + b"\n\n")


@given(st.dictionaries(st.text(max_size=6), st.integers(), max_size=5), st.booleans())
def test_the_request_keeps_every_field(fields: dict[str, int], stream: bool) -> None:
    fields = {n: v for n, v in fields.items() if n not in ("model", "stream", "stream_options")}
    raw = {name: msgspec.json.encode(value) for name, value in fields.items()}
    sent = msgspec.json.decode(encoded(PROVIDER, 'm"1', raw, stream).body)
    more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    assert sent == {"model": 'm"1', **fields, **more}


def test_a_whole_answer_is_read_and_its_bytes_are_kept() -> None:
    body = b'{ "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "later": 1 }'
    passed, facts = whole(PROVIDER, body)
    assert passed is body
    assert (facts.text, facts.finish, facts.complete) == ("x", "stop", True)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"choices": []}', b"[]", b"\xff", b"<html>"])
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises((ValueError, msgspec.DecodeError)):
        whole(PROVIDER, body)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "m", "code": "c", "type": "t"}}', ("c", "m")),
        (b'{"error": {"message": "m", "code": 429, "type": "t"}}', ("t", "m")),
        (b'{"error": "plain"}', (None, "plain")),
        (b'{"detail": "x"}', (None, None)),
        (b"<html>", (None, None)),
        (b"", (None, None)),
        (b"\xff", (None, None)),
    ],
)
def test_the_reason_of_a_refusal(body: bytes, said: tuple[str | None, str | None]) -> None:
    assert PROVIDER.reason(body) == said
