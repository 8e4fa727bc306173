"""A check looks at a stream through its window: what it objects to is seen, however it is cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.base import RequestError
from tidegate.gateway.guard import StreamGuard, require
from tidegate.gateway.neutral import AnswerFacts, TextDelta, Transcript


class Forbids:
    """An answer must not hold a phrase."""

    def __init__(self, phrase: str) -> None:
        self.name = "forbids"
        self.phrase = phrase
        self.window = len(phrase)

    def whole(self, said: AnswerFacts) -> str | None:
        return self.part(said.text or "")

    def part(self, text: str) -> str | None:
        return f"says {self.phrase!r}" if self.phrase in text else None


class Counts(Forbids):
    """A check of whole answers only."""

    def __init__(self) -> None:
        super().__init__("never looked for")
        self.window = 0


def passed(guard: StreamGuard, pieces: list[str]) -> list[str]:
    """The pieces that were let pass before the guard objected, and whether it did."""
    said, out = Transcript(), []
    for piece in pieces:
        said.add([TextDelta(0, piece)])
        try:
            guard.look(said)
        except RequestError as error:
            if (error.status, error.code) != (502, "output_invalid"):
                raise
            return [*out, "!"]
        out.append(piece)
    return out


@pytest.mark.parametrize(
    ("pieces", "sent"),
    [
        (["take ", "aspirin", " daily"], ["take ", "!"]),
        (["take asp", "irin"], ["take asp", "!"]),
        (["a", "s", "p", "i", "r", "i", "n"], [*"aspiri", "!"]),
        (["asp", "", "irin"], ["asp", "", "!"]),
        (["as", "pi", "rinx"], ["as", "pi", "!"]),
        (["take ", "water"], ["take ", "water"]),
    ],
)
def test_a_phrase_is_seen_over_events_and_its_end_is_never_sent(
    pieces: list[str], sent: list[str]
) -> None:
    assert passed(StreamGuard([Forbids("aspirin")], "small"), pieces) == sent


@given(
    text=st.text(alphabet="ab ", max_size=30),
    phrase=st.text(alphabet="ab", min_size=1, max_size=4),
    places=st.lists(st.integers(0, 30), max_size=6),
)
def test_any_cutting_gives_the_verdict_of_the_whole(
    text: str, phrase: str, places: list[int]
) -> None:
    borders = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(borders)]
    guard = StreamGuard([Forbids(phrase), Counts()], "small")
    assert ("!" in passed(guard, pieces)) == (phrase in text)


def test_where_no_check_looks_at_streams_nothing_is_looked_at() -> None:
    assert not StreamGuard([], "small").looks
    assert not StreamGuard([Counts()], "small").looks
    assert StreamGuard([Counts(), Forbids("x")], "small").looks


def test_a_whole_answer_must_hold_to_every_check() -> None:
    facts = AnswerFacts("stop", True, None, "take aspirin")
    require([Counts(), Forbids("water")], "small", facts)
    with pytest.raises(RequestError, match="'small' says 'aspirin'"):
        require([Counts(), Forbids("aspirin")], "small", facts)
