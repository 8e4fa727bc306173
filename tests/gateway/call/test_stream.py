"""One model's stream: the client's bytes are the model's, and no ending is made up."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gateway.calls import chat_request, new_journal, plans_of
from tests.gateway.loops import run
from tidegate.base.money import Usage
from tidegate.gateway.call import Stream
from tidegate.gateway.call.stream import HELD_EVENTS, MOST_SKIPPED
from tidegate.gateway.call.turns import Turn
from tidegate.gateway.plan import Plan
from tidegate.gateway.targets import make_target
from tidegate.gateway.values import Answer
from tidegate.gateway.wire.upstream import UpstreamFault

PLAN = plans_of()["plain"]
SMALL = make_target(PLAN.targets[0].model, "http://127.0.0.1:9/v1", None)
CUT = UpstreamFault("upstream_cut", "the connection broke")


class Pieces:
    """A connection whose answer comes in the pieces given, then ends or fails."""

    def __init__(self, pieces: list[bytes], fault: UpstreamFault | None = None) -> None:
        self.pieces, self.fault = [*pieces], fault
        self.finished = 0

    async def read(self) -> bytes:
        if self.pieces:
            return self.pieces.pop(0)
        if self.fault is not None:
            raise self.fault
        return b""

    def first_token_seen(self, idle: float) -> None: ...

    def finish(self, *, drain: bool = False) -> None:
        self.finished += 1


def stream_of(connection: Any, plan: Plan = PLAN, **body: Any) -> Stream:
    """A stream of the model ``small`` over ``connection``."""
    ask = chat_request(plan, **body).ask
    turn = Turn(SMALL, new_journal().begin("small"), 0)
    return Stream(ask, turn, connection, SMALL.keys.take(0.0), plan.terms)


def relayed(
    pieces: list[bytes], fault: UpstreamFault | None = None, wants_usage: bool = True
) -> tuple[list[bytes], UpstreamFault | None, Answer]:
    """What the client gets, in its parts; what broke it; the answer."""

    async def main() -> tuple[list[bytes], UpstreamFault | None, Answer]:
        connection: Any = Pieces(pieces, fault)
        stream = stream_of(connection, stream=True, stream_options={"include_usage": wants_usage})
        out: list[bytes] = []
        broken = None
        try:
            await stream.commit(1.0)
            while data := await stream.next():
                out.append(data)
        except UpstreamFault as error:
            broken = error
        answer = stream.answer(b"".join(out))
        if broken is None:
            stream.release()
        stream.drop("upstream_cut" if broken is None else broken.code)
        stream.release()
        assert connection.finished == 1
        return out, broken, answer

    return run(main())


def chunk(delta: dict[str, object], finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return msgspec.json.encode({"id": "c", "choices": [choice], **more})


def event(data: bytes, end: bytes = b"\n") -> bytes:
    return b"data: " + data + end + end


def text(words: str) -> bytes:
    return event(chunk({"content": words}))


ROLE = event(chunk({"role": "assistant", "content": ""}))
FINISH = event(chunk({}, "stop"))
DONE = event(b"[DONE]")


def usage(completion: int) -> bytes:
    numbers = {"prompt_tokens": 5, "completion_tokens": completion}
    return event(msgspec.json.encode({"choices": [], "usage": numbers}))


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, str]:
    """Everything a stream may look like on the wire, without its [DONE]; and its text."""
    end = draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    words = draw(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=8))
    out = [draw(st.sampled_from([b"", b"\xef\xbb\xbf"])), event(chunk({"role": "assistant"}), end)]
    for word in words:
        data = chunk({"content": word})
        match draw(st.sampled_from(["plain", "lines", "named", "comment", "tight"])):
            case "plain":
                out.append(event(data, end))
            case "lines":  # one JSON value over two lines of data
                out.append(b"data: {" + end + b"data: " + data[1:] + end + end)
            case "named":
                out.append(b"event: message" + end + b"id: 7" + end + event(data, end))
            case "comment":
                out.append(b": ping" + end + end + event(data, end))
            case "tight":
                out.append(b"data:" + data + end + end)
    out += [event(chunk({}, "stop"), end), usage(len(words)).replace(b"\n", end)]
    return b"".join(out), "".join(words)


@given(streams(), st.lists(st.integers(0, 10_000), max_size=12), st.booleans())
@settings(max_examples=150, deadline=None)
def test_the_client_s_bytes_are_the_model_s_however_they_are_cut(
    stream: tuple[bytes, str], places: list[int], done: bool
) -> None:
    data, words = stream
    whole = data + (DONE if done else b"")
    borders = [0, *sorted(place % len(whole) for place in places), len(whole)]
    pieces = [whole[a:b] for a, b in itertools.pairwise(borders) if a < b]
    out, broken, answer = relayed(pieces)
    assert broken is None
    assert b"".join(out) == data
    assert (answer.content, answer.finish, answer.complete) == (words, "stop", True)


@given(streams(), st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_a_stream_that_is_cut_anywhere_never_looks_whole(
    stream: tuple[bytes, str], place: int
) -> None:
    data, words = stream
    cut = data[: place % len(data)]
    out, broken, answer = relayed([cut] if cut else [], CUT)
    # At most the end of the last line is added, so that the client reads that event too.
    assert data.startswith(b"".join(out).rstrip(b"\r\n"))
    if answer.finish is None:
        assert broken is not None
    else:  # all content and its end were there
        assert (broken, answer.content) == (None, words)


def test_each_event_leaves_when_it_comes() -> None:
    out, _, _ = relayed([ROLE, text("a"), text("b"), FINISH, DONE])
    assert out == [ROLE + text("a"), text("b"), FINISH]


def test_nothing_leaves_before_content() -> None:
    noise = [
        ROLE,
        b": ping\n\n",
        event(b'{"choices":[],"prompt_filter_results":[]}'),
        event(chunk({"content": ""})),
        event(chunk({"reasoning_content": "hm"})),
    ]
    out, broken, _ = relayed(noise, CUT)
    assert (out, broken) == ([], CUT)
    out, broken, _ = relayed([*noise, text("a"), FINISH, DONE])
    assert out[0] == b"".join(noise) + text("a")


def test_what_is_held_is_bounded() -> None:
    thoughts = [event(chunk({"reasoning_content": "hm"}))] * (HELD_EVENTS + 5)
    out, broken, _ = relayed(thoughts, CUT)
    assert b"".join(out) == b"".join(thoughts)
    assert broken is CUT


def test_an_ending_without_a_reason_is_none() -> None:
    out, broken, _ = relayed([text("a"), DONE])
    assert out == [text("a")]
    assert broken is not None
    assert broken.code == "upstream_cut"


def test_what_came_before_an_error_still_goes() -> None:
    wrong = event(b'{"error":{"message":"busy"}}')
    out, broken, _ = relayed([text("a"), text("b") + text("c") + wrong])
    assert out == [text("a"), text("b") + text("c")]
    assert broken is not None
    assert "busy" in broken.words


def test_a_fault_after_the_finish_loses_nothing() -> None:
    out, broken, answer = relayed([text("a"), FINISH], CUT)
    assert (b"".join(out), broken, answer.complete) == (text("a") + FINISH, None, True)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_stream_that_just_stops_after_its_finish_ends(end: bytes) -> None:
    """Its last CR waits for an LF that never comes: this once gave blank lines without end."""
    data = (text("a") + FINISH).replace(b"\n", end)
    out, broken, _ = relayed([data])
    assert (b"".join(out), broken) == (data, None)


class TestUnreadableEvents:
    """Given an event that nobody can read: the answer passes only where nothing can be lost."""

    BAD = event(b'{"choices":[{"delta":')

    def test_when_the_tokens_are_all_there_it_passes_and_is_not_kept(self) -> None:
        pieces = [text("a"), self.BAD, text("b"), FINISH, usage(2), DONE]
        out, broken, answer = relayed(pieces)
        assert broken is None
        assert b"".join(out) == text("a") + text("b") + FINISH + usage(2)
        assert (answer.content, answer.finish, answer.complete) == ("ab", "stop", False)

    @pytest.mark.parametrize("tail", [[usage(3), DONE], [usage(1), DONE], [DONE], []])
    def test_when_one_may_be_lost_the_finish_is_not_told(self, tail: list[bytes]) -> None:
        out, broken, _ = relayed([text("a"), self.BAD, text("b"), FINISH, *tail])
        assert broken is not None
        assert broken.code == "upstream_protocol"
        assert b"".join(out) == text("a") + text("b"), "the finish would look like success"

    def test_all_in_one_piece_too(self) -> None:
        out, broken, _ = relayed([text("a") + self.BAD + text("b") + FINISH + DONE])
        assert out == []
        assert broken is not None

    def test_too_many_are_a_fault_at_once(self) -> None:
        out, broken, _ = relayed([text("a"), *[self.BAD] * (MOST_SKIPPED + 1), text("b")])
        assert out == [text("a")]
        assert broken is not None
        assert broken.code == "upstream_protocol"

    def test_none_but_unreadable_ones_are_no_content(self) -> None:
        out, broken, _ = relayed([self.BAD, self.BAD], CUT)
        assert (out, broken) == ([], CUT)


def test_an_answer_may_have_so_many_bytes() -> None:
    plan = plans_of()["small-answers"]

    async def main() -> str | None:
        connection: Any = Pieces([text("word" * 20)] * 20)
        stream = stream_of(connection, plan, stream=True)
        try:
            await stream.commit(1.0)
            while await stream.next():
                pass
        except UpstreamFault as fault:
            return fault.code
        finally:
            stream.drop("upstream_too_large")
        return None

    assert run(main()) == "upstream_too_large"


def test_what_a_broken_answer_is_billed_is_what_the_provider_said_or_an_estimate() -> None:
    async def main(pieces: list[bytes]) -> Usage:
        connection: Any = Pieces(pieces, CUT)
        messages = [{"role": "user", "content": "x" * 8}]  # 40 bytes
        stream = stream_of(connection, stream=True, messages=messages)
        await stream.commit(1.0)
        with pytest.raises(UpstreamFault):
            await stream.rest(1 << 20)
        stream.drop()
        return stream.billed

    assert run(main([text("12345678")])) == Usage(prompt=10, completion=2, estimated=True)
    assert run(main([text("a"), usage(1)])) == Usage(prompt=5, completion=1)


@pytest.mark.parametrize(
    ("delta", "written"),
    [
        ({"content": "abcdefgh"}, 8),
        ({"content": "\u4e2d\u6587"}, 6),  # bytes count, where they are more
        ({"reasoning_content": "t" * 400}, 400),
        ({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "a" * 399}}]}, 400),
    ],
)
@pytest.mark.parametrize("fault", [None, CUT])
def test_what_no_provider_counted_is_estimated_from_all_that_was_written(
    delta: dict[str, Any], written: int, fault: UpstreamFault | None
) -> None:
    """Thoughts and calls of tools are billed as text is: an estimate of the text alone would make
    a request of an agent cost next to nothing."""
    pieces = [event(chunk(delta)), FINISH]
    _, _, answer = relayed(pieces if fault is None else pieces[:1], fault)
    assert answer.usage is not None
    assert answer.usage.estimated
    assert answer.usage.completion == -(-written // 4)
