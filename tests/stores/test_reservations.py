"""Prefetching: never more is granted than was reserved, and what is over goes back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tidegate.stores.reservations import (
    MOST,
    PERIOD,
    SHARE,
    ReservationGranted,
    ReservationPart,
    ReservationPrefetch,
)

amounts = st.lists(st.integers(0, 1000), min_size=1, max_size=3)


def parts_of(some: list[int]) -> list[ReservationPart]:
    return [
        ReservationPart(b"tg:l:%d" % place, 1, amount, False, 1 << 50, 0.0, 1000)
        for place, amount in enumerate(some)
    ]


def filled(one: list[int], count: int, left: int = 10_000) -> ReservationPrefetch:
    prefetch = ReservationPrefetch(0.0)
    prefetch.refill(
        parts_of(one), count, ReservationGranted(b"7000", 0b10, [left] * len(one)), 3, 0.0
    )
    return prefetch


@given(one=amounts, count=st.integers(0, MOST), factors=st.lists(st.integers(0, 3), max_size=80))
def test_what_is_taken_and_what_goes_back_is_what_was_reserved(
    one: list[int], count: int, factors: list[int]
) -> None:
    prefetch = filled(one, count)
    taken = [0] * len(one)
    for factor in factors:
        asked = [amount * factor for amount in one]
        granted = prefetch.grant(parts_of(asked), 0.05)
        if granted is None:
            continue
        assert (granted.slot, granted.barred, granted.prefetched) == (b"7000", 0b10, True)
        taken = [sum(pair) for pair in zip(taken, asked, strict=True)]
        for left, amount, gone in zip(granted.left, one, taken, strict=True):
            assert left == 10_000 + amount * count - gone, "ours, and what the store has beyond"
    back, slot = prefetch.release()
    returned = {settlement.key: settlement.reserved for settlement in back}
    for place, (amount, gone) in enumerate(zip(one, taken, strict=True)):
        assert gone + returned.get(b"tg:l:%d" % place, 0) == amount * count
        assert 0 <= gone <= amount * count
    assert slot == b"7000"
    assert all(settlement.used == 0 for settlement in back)
    assert prefetch.release() == ([], b"7000"), "it goes back once"
    assert prefetch.grant(parts_of(one), 0.05) is None


@given(one=amounts, left=st.integers(0, 1 << 40), rounds=st.lists(st.integers(1, 64), max_size=5))
def test_a_prefetch_is_a_small_part_of_what_is_left(
    one: list[int], left: int, rounds: list[int]
) -> None:
    prefetch = ReservationPrefetch(0.0)
    parts = parts_of(one)
    assert prefetch.next_count(parts, 1, 0.0) == 0, "nobody knows yet what is left"
    prefetch.observe([left] * len(one))
    for asked in rounds:
        count = prefetch.next_count(parts, asked, 0.0)
        assert 0 <= count <= MOST
        assert all(count * part.amount * SHARE <= left for part in parts)


def test_it_follows_how_fast_requests_come() -> None:
    prefetch = ReservationPrefetch(0.0)
    parts = parts_of([1])
    plenty = ReservationGranted(b"1", 0, [1 << 40])
    prefetch.observe(plenty.left)
    counts = []
    for _ in range(7):
        counts.append(prefetch.next_count(parts, 1, 0.0))
        prefetch.refill(parts, counts[-1], plenty, 0, 0.0)
        while prefetch.grant(parts, 0.0) is not None:
            pass
    assert counts == [2, 6, 14, 30, 62, 64, 64]


def test_it_is_handed_out_for_a_moment_only_and_its_lesson_is_kept_a_moment_longer() -> None:
    prefetch = filled([1], 8)
    parts = parts_of([1])
    assert prefetch.grant(parts, PERIOD - 0.001) is not None
    assert prefetch.grant(parts, PERIOD) is None
    assert prefetch.next_count(parts, 1, PERIOD * 2 - 0.001) == 4
    assert prefetch.next_count(parts, 1, PERIOD * 2) == 0


def test_while_one_filling_is_on_its_way_no_other_is_asked_for() -> None:
    prefetch = filled([1], 8)
    parts = parts_of([1])
    prefetch.requested = True
    assert prefetch.next_count(parts, 1, 0.0) == 0
    prefetch.requested = False
    assert prefetch.next_count(parts, 1, 0.0) == 4, "those that asked meanwhile count too"


def test_after_a_refusal_or_no_answer_nothing_is_prefetched_until_there_is_one() -> None:
    prefetch = filled([1], 8)
    parts = parts_of([1])
    prefetch.observe(())
    assert prefetch.next_count(parts, 1, 0.0) == 0
    prefetch.observe([10_000])
    assert prefetch.next_count(parts, 1, 0.0) == 4
