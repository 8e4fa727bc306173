"""What a route may spend on asking again stays within its bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.gateway.plan import RetryBudget
from tidegate.gateway.plan.budgets import BURST, FLOOR


@given(
    st.floats(0.01, 1),
    st.lists(st.tuples(st.floats(0, 30), st.integers(0, 20)), max_size=80),
    st.data(),
)
def test_retries_stay_in_their_budget(
    share: float, course: list[tuple[float, int]], data: st.DataObject
) -> None:
    """Over any stretch of the course, not only from the start on."""
    budget, now = RetryBudget(share, 0.0), 0.0
    made: list[tuple[float, int]] = []
    for wait, wishes in course:
        now += wait
        budget.earn(now)
        took = 0
        while took < wishes and budget.affordable:
            budget.take()
            took += 1
        made.append((now, took))
    if not made:
        return
    start = data.draw(st.integers(0, len(made) - 1))
    end = data.draw(st.integers(start, len(made) - 1))
    stretch = made[start : end + 1]
    time = stretch[-1][0] - stretch[0][0]
    bound = BURST + share * len(stretch) + FLOOR * time
    assert sum(took for _, took in stretch) <= bound + 1e-6


@pytest.mark.parametrize("share", [0.05, 0.2, 1.0])
def test_a_long_outage_gets_its_share_and_no_more(share: float) -> None:
    budget, took = RetryBudget(share, 0.0), 0
    for _ in range(1000):
        budget.earn(0.0)
        while budget.affordable:
            budget.take()
            took += 1
    assert took == pytest.approx(BURST + 1000 * share, abs=1.01)


def test_without_a_share_there_are_no_retries_and_time_brings_none() -> None:
    budget = RetryBudget(0.0, 0.0)
    for now in range(100):
        budget.earn(now * 1000.0)
        assert not budget.affordable


def test_a_clock_that_stands_still_or_steps_back_earns_nothing() -> None:
    budget = RetryBudget(0.01, 1000.0)
    while budget.affordable:
        budget.take()
    for now in (1000.0, 990.0, 1000.0):
        budget.earn(now)
        assert not budget.affordable
    budget.earn(1002.1)
    assert budget.affordable
