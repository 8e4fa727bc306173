"""The delay before the next start grows with short runs and is forgotten after a long one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.base.restarts import (
    FAILING_AFTER,
    FAILING_DELAY,
    FIRST_DELAY,
    STABLE_AFTER,
    ChildRun,
    next_restart,
)

SHORT = ChildRun(seconds=1.0, exit=1)
LONG = ChildRun(seconds=STABLE_AFTER, exit=0)
RUNS = st.builds(ChildRun, seconds=st.floats(0, 1e6), exit=st.integers(-64, 255))


@pytest.mark.parametrize(
    ("runs", "delay", "failing"),
    [
        ([SHORT], FIRST_DELAY, False),
        ([SHORT, SHORT], 2 * FIRST_DELAY, False),
        ([SHORT] * 4, 8 * FIRST_DELAY, False),
        ([SHORT] * FAILING_AFTER, FAILING_DELAY, True),
        ([SHORT] * 9 + [LONG], FIRST_DELAY, False),
        ([SHORT] * 9 + [LONG, SHORT], FIRST_DELAY, False),
        ([LONG, SHORT, SHORT], 2 * FIRST_DELAY, False),
    ],
)
def test_delay_by_history(runs: list[ChildRun], delay: float, failing: bool) -> None:
    restart = next_restart(runs, jitter=1.0)
    assert restart.delay == pytest.approx(delay)
    assert restart.failing is failing


@settings(max_examples=100)
@given(st.lists(RUNS, min_size=1, max_size=40), st.floats(0, 1, exclude_max=True))
def test_any_history_gives_a_bounded_delay_and_a_sentence(
    runs: list[ChildRun], jitter: float
) -> None:
    restart = next_restart(runs, jitter)
    assert FIRST_DELAY / 2 <= restart.delay <= FAILING_DELAY
    assert f"{abs(runs[-1].exit)}" in restart.sentence


def test_the_sentence_says_what_happened() -> None:
    sentence = next_restart([ChildRun(seconds=3.21, exit=-9)], jitter=1.0).sentence
    assert sentence == "was killed by signal 9 after 3.2 s: started again in 0.2 s"
