"""Tokens are counted for text of any length, and never hold the event loop for long."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.base import tokens
from tidegate.base.tokens import count_now, count_tokens

# The vocabulary's package reads its data in a way that newer Pythons advise against.
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated. Use files:DeprecationWarning")


@pytest.mark.parametrize(
    ("text", "count"), [("", 0), ("hello world", 2), ("<|endoftext|>", 7), ("word " * 10, 11)]
)
def test_known_counts(text: str, count: int) -> None:
    assert count_now(text) == count


@pytest.mark.parametrize("length", [999_999, 1_000_000, 3_000_000])
def test_text_of_any_length_is_counted(length: int) -> None:
    """The encoder itself refuses a million characters."""
    assert count_now(("word " * (length // 5 + 1))[:length]) == pytest.approx(length / 5, rel=0.001)


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=400), piece=st.integers(20, 100))
def test_pieces_change_the_count_by_little(text: str, piece: int) -> None:
    whole = count_now(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "_PIECE", piece)
        cuts = len(text) // piece
        assert abs(count_now(text) - whole) <= 6 * cuts


def test_a_long_text_does_not_hold_the_loop() -> None:
    async def main() -> float:
        await count_tokens("the vocabulary is loaded")
        counting = asyncio.create_task(count_tokens("word " * 400_000))
        # CPU time of this process, so that only its own counting can make a turn long.
        longest, before = 0.0, time.process_time()
        while not counting.done():
            await asyncio.sleep(0)
            now = time.process_time()
            longest, before = max(longest, now - before), now
        assert await counting > 399_000
        return longest

    assert asyncio.run(main()) < 0.2
