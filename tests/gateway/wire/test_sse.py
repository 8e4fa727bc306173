"""However a stream is cut, the same events come out and no byte is changed."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tidegate.gateway.wire import sse
from tidegate.gateway.wire.sse import EventSplitter, data_of

ENDS = (b"\n", b"\r\n", b"\r")
LINES = st.one_of(
    st.text(alphabet=st.sampled_from("aé😀 :{}\u2028"), max_size=12).map(
        lambda text: b"data: " + text.encode()
    ),
    st.sampled_from([b"data:", b": comment", b"event: ping", b"id: 7", b"data", b"retry: 5"]),
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Well-formed and ill-formed streams, each line with an end of its own kind."""
    lines = draw(st.lists(st.one_of(LINES, st.just(b"")), max_size=14))
    ends = draw(st.lists(st.sampled_from(ENDS), min_size=len(lines), max_size=len(lines)))
    return b"".join(line + end for line, end in zip(lines, ends, strict=True))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    borders = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(borders)]


def feed_all(pieces: list[bytes]) -> tuple[list[bytes], bytes]:
    splitter = EventSplitter()
    events = [event for piece in pieces for event in splitter.feed(piece)]
    return events, splitter.rest


def reference(stream: bytes) -> tuple[list[bytes], bytes]:
    """The standard read as a state machine: a line, then an empty line, ends an event."""
    events, start, at, ends = [], 0, 0, 0
    while at < len(stream):
        match = re.compile(rb"\r\n|\n|\r").match(stream, at)
        if match is None:
            ends, at = 0, at + 1
            continue
        if match.group() == b"\r" and match.end() == len(stream):
            break  # perhaps half of CRLF
        ends, at = ends + 1, match.end()
        if ends == 2:
            events.append(stream[start:at])
            start, ends = at, 0
    return events, stream[start:]


@settings(max_examples=300)
@given(stream=streams(), places=st.lists(st.integers(0, 400), max_size=12))
@example(stream=b"data: a\r\n\r\ndata: b\r\n\r\n", places=list(range(40)))
@example(stream=b"data: a\r\rdata: b\r\r\n", places=list(range(40)))
@example(stream=b"data: a\n\r\n\n\n", places=list(range(40)))
def test_any_cutting_gives_the_same_events(stream: bytes, places: list[int]) -> None:
    events, rest = feed_all(cut(stream, places))
    assert (events, rest) == feed_all([stream]) == reference(stream)
    assert b"".join(events) + rest == stream


@given(stream=streams())
def test_byte_by_byte_is_as_good_as_whole(stream: bytes) -> None:
    assert feed_all([stream[n : n + 1] for n in range(len(stream))]) == feed_all([stream])


@given(stream=st.binary(max_size=200), places=st.lists(st.integers(0, 200), max_size=8))
def test_no_byte_is_lost_of_garbage(stream: bytes, places: list[int]) -> None:
    events, rest = feed_all(cut(stream, places))
    assert b"".join(events) + rest == stream


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    ("lines", "data"),
    [
        ([b'data: {"a":1}'], b'{"a":1}'),
        ([b'data:{"a":1}'], b'{"a":1}'),
        ([b"data: one", b"data: two"], b"one\ntwo"),
        ([b"event: ping", b"data: {}"], b"{}"),
        ([b"data: {}", b"id: 7"], b"{}"),
        ([b"data:  [DONE] "], b"[DONE]"),
        ([b"data:"], b""),
        ([b": keep-alive"], None),
        ([b"event: ping"], None),
        ([b"database: no"], None),
    ],
)
def test_the_data_of_an_event(lines: list[bytes], data: bytes | None, end: bytes) -> None:
    assert data_of(end.join(lines) + end + end) == data


def test_an_event_above_the_limit_is_refused_in_whatever_pieces() -> None:
    for size in (1, 7, 500):
        splitter = EventSplitter(limit=100)
        whole, last = divmod(100, size)
        for _ in range(whole):
            assert splitter.feed(b"x" * size) == []
        with pytest.raises(ValueError, match="larger than 100 bytes"):
            splitter.feed(b"x" * (last + 1))


def test_many_small_events_never_meet_the_limit() -> None:
    splitter = EventSplitter(limit=100)
    assert len(splitter.feed(b"data: x\n\n" * 1000)) == 1000


def test_a_huge_event_in_small_pieces_is_not_copied_again_and_again() -> None:
    splitter = EventSplitter()
    piece, pieces = b"x" * 64, 4096
    largest = 0
    for _ in range(pieces):
        assert splitter.feed(piece) == []
        window = splitter.window  # what the next piece is looked at together with
        largest = max(largest, len(window))
    assert largest <= 3, "the work of one feed must not grow with what has come before"
    (event,) = splitter.feed(b"\n\n")
    assert event == piece * pieces + b"\n\n"


def test_a_lone_cr_at_the_end_of_each_piece_is_no_trap() -> None:
    assert sse.EventSplitter().feed(b"data: a\r") == []
    pieces = [b"data: a\r", b"\n\r", b"\ndata: b\r\n", b"\r\n"]
    assert feed_all(pieces) == ([b"data: a\r\n\r\n", b"data: b\r\n\r\n"], b"")
