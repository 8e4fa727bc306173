"""Borrowing ahead: never more is handed out than was lent, and what is over goes back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tidegate.stores.lending import MOST, PERIOD, SHARE, Advance, Borrow, Granted

amounts = st.lists(st.integers(0, 1000), min_size=1, max_size=3)


def wishes_of(some: list[int]) -> list[Borrow]:
    return [
        Borrow(b"tg:l:%d" % place, 1, amount, False, 1 << 50, 0.0, 1000)
        for place, amount in enumerate(some)
    ]


def filled(one: list[int], count: int, left: int = 10_000) -> Advance:
    advance = Advance(0.0)
    advance.fill(wishes_of(one), count, Granted(b"7000", 0b10, [left] * len(one)), 3, 0.0)
    return advance


@given(one=amounts, count=st.integers(0, MOST), factors=st.lists(st.integers(0, 3), max_size=80))
def test_what_is_taken_and_what_goes_back_is_what_was_lent(
    one: list[int], count: int, factors: list[int]
) -> None:
    advance = filled(one, count)
    taken = [0] * len(one)
    for factor in factors:
        asked = [amount * factor for amount in one]
        granted = advance.take(wishes_of(asked), 0.05)
        if granted is None:
            continue
        assert (granted.slot, granted.barred, granted.ahead) == (b"7000", 0b10, True)
        taken = [sum(pair) for pair in zip(taken, asked, strict=True)]
        for left, amount, gone in zip(granted.left, one, taken, strict=True):
            assert left == 10_000 + amount * count - gone, "ours, and what the store has beyond"
    back, slot = advance.give_back()
    returned = {settlement.key: settlement.borrowed for settlement in back}
    for place, (amount, gone) in enumerate(zip(one, taken, strict=True)):
        assert gone + returned.get(b"tg:l:%d" % place, 0) == amount * count
        assert 0 <= gone <= amount * count
    assert slot == b"7000"
    assert all(settlement.truth == 0 for settlement in back)
    assert advance.give_back() == ([], b"7000"), "it goes back once"
    assert advance.take(wishes_of(one), 0.05) is None


@given(one=amounts, left=st.integers(0, 1 << 40), rounds=st.lists(st.integers(1, 64), max_size=5))
def test_an_advance_is_a_small_part_of_what_is_left(
    one: list[int], left: int, rounds: list[int]
) -> None:
    advance = Advance(0.0)
    wishes = wishes_of(one)
    assert advance.wanted(wishes, 1, 0.0) == 0, "nobody knows yet what is left"
    advance.learn([left] * len(one))
    for asked in rounds:
        count = advance.wanted(wishes, asked, 0.0)
        assert 0 <= count <= MOST
        assert all(count * wish.amount * SHARE <= left for wish in wishes)


def test_it_follows_how_fast_requests_come() -> None:
    advance = Advance(0.0)
    wishes = wishes_of([1])
    plenty = Granted(b"1", 0, [1 << 40])
    advance.learn(plenty.left)
    counts = []
    for _ in range(7):
        counts.append(advance.wanted(wishes, 1, 0.0))
        advance.fill(wishes, counts[-1], plenty, 0, 0.0)
        while advance.take(wishes, 0.0) is not None:
            pass
    assert counts == [2, 6, 14, 30, 62, 64, 64]


def test_it_is_handed_out_for_a_moment_only_and_its_lesson_is_kept_a_moment_longer() -> None:
    advance = filled([1], 8)
    wishes = wishes_of([1])
    assert advance.take(wishes, PERIOD - 0.001) is not None
    assert advance.take(wishes, PERIOD) is None
    assert advance.wanted(wishes, 1, PERIOD * 2 - 0.001) == 4
    assert advance.wanted(wishes, 1, PERIOD * 2) == 0


def test_while_one_filling_is_on_its_way_no_other_is_asked_for() -> None:
    advance = filled([1], 8)
    wishes = wishes_of([1])
    advance.asking = True
    assert advance.wanted(wishes, 1, 0.0) == 0
    advance.asking = False
    assert advance.wanted(wishes, 1, 0.0) == 4, "those that asked meanwhile count too"


def test_after_a_refusal_or_no_answer_nothing_is_borrowed_ahead_until_there_is_one() -> None:
    advance = filled([1], 8)
    wishes = wishes_of([1])
    advance.learn(())
    assert advance.wanted(wishes, 1, 0.0) == 0
    advance.learn([10_000])
    assert advance.wanted(wishes, 1, 0.0) == 4
