"""The breaker: every row of its table, and what holds for any course of events."""

from __future__ import annotations

import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.gateway.targets.breaker import (
    TABLE,
    BreakerEvent,
    Closed,
    HalfOpen,
    Open,
    State,
    admits,
    step,
)
from tidegate.release.values import Breaker

SETTINGS = Breaker(failures=0.5, minimum=3, window=10, open=4)
EVENTS: tuple[BreakerEvent, ...] = typing.get_args(BreakerEvent)

ROWS: list[tuple[State, BreakerEvent, State, str]] = [
    (Closed(0), "ask", Closed(0), ""),
    (Closed(0), "answered", Closed(0, good=1), ""),
    (Closed(0), "failed", Closed(0, bad=1), ""),
    (Closed(0, good=2), "broke", Closed(0, good=1, bad=1), ""),
    (Closed(0, good_before=2), "broke", Closed(0, bad=1, good_before=1), ""),
    (Closed(0), "broke", Closed(0, bad=1), ""),
    (Closed(0, good=1, bad=2), "broke", Open(5, 4), "open: 3 of 3 tries failed within 10 s"),
    (Closed(0), "abandoned", Closed(0), ""),
    (Closed(0, good=2, bad=2), "failed", Open(5, 4), "open: 3 of 5 tries failed within 10 s"),
    (Open(2, 4), "answered", Open(2, 4), ""),
    (Open(2, 4), "failed", Open(2, 4), ""),
    (Open(2, 4), "broke", Open(2, 4), ""),
    (Open(2, 4), "abandoned", Open(2, 4), ""),
    (Open(2, 4), "ask", Open(2, 4), ""),
    (Open(1, 4), "ask", HalfOpen(4), "half-open: one probe after 4 s"),
    (HalfOpen(4), "ask", HalfOpen(4), ""),
    (HalfOpen(4), "answered", Closed(1), "closed: the probe was answered"),
    (HalfOpen(4), "failed", Open(7, 6), "open again for 6 s: the probe failed"),
    (HalfOpen(6), "failed", Open(10, 9), "open again for 9 s: the probe failed"),
    (HalfOpen(9), "failed", Open(13, 12), "open again for 12 s: the probe failed"),
    (HalfOpen(12), "failed", Open(13, 12), "open again for 12 s: the probe failed"),
    (HalfOpen(4), "broke", HalfOpen(4), ""),
    (
        HalfOpen(4),
        "abandoned",
        Open(1, 4),
        "open: the probe was abandoned, the next request is one",
    ),
]


@pytest.mark.parametrize(("state", "event", "then", "words"), ROWS)
def test_each_row(state: State, event: BreakerEvent, then: State, words: str) -> None:
    assert step(state, event, 1.0, SETTINGS) == (then, words)


def test_the_table_is_complete_and_so_are_these_rows() -> None:
    pairs = {(kind, event) for kind in typing.get_args(State) for event in EVENTS}
    assert set(TABLE) == pairs == {(type(state), event) for state, event, _, _ in ROWS}


@pytest.mark.parametrize(
    ("state", "passes"),
    [(Closed(0), True), (Open(1, 4), True), (Open(1.1, 4), False), (HalfOpen(4), False)],
)
def test_who_passes(state: State, passes: bool) -> None:
    assert admits(state, 1.0) is passes


@pytest.mark.parametrize(
    ("good", "bad", "opens"),
    [
        (0, 2, False),  # fewer failures than the minimum, though all failed
        (0, 3, True),
        (3, 3, True),  # just the share
        (4, 3, False),
        (4, 4, True),
    ],
)
def test_both_the_minimum_and_the_share_must_be_reached(good: int, bad: int, opens: bool) -> None:
    state: State = Closed(0.0)
    for event, count in (("answered", good), ("failed", bad)):
        for _ in range(count):
            state, _ = step(state, typing.cast("BreakerEvent", event), 1.0, SETTINGS)
    assert isinstance(state, Open) is opens


@pytest.mark.parametrize(("after", "opens"), [(4.9, True), (7.0, True), (12.0, False)])
def test_what_lies_longer_ago_than_the_window_does_not_count(after: float, opens: bool) -> None:
    state: State = Closed(0.0)
    for now in (0.0, 0.0, after):
        state, _ = step(state, "failed", now, SETTINGS)
    assert isinstance(state, Open) is opens


settings = st.builds(
    Breaker,
    failures=st.floats(0.01, 1),
    minimum=st.integers(1, 5),
    window=st.floats(1, 20),
    open=st.floats(0.5, 10),
)
courses = st.lists(st.tuples(st.floats(0, 15), st.sampled_from(EVENTS)), max_size=60)


@given(settings, courses)
def test_any_course_of_events(settings: Breaker, course: list[tuple[float, BreakerEvent]]) -> None:
    """Whatever is said of the model, and when: the caller of ``step`` asks only where it may."""
    state: State = Closed(0.0)
    now, under_way, failures = 0.0, 0, 0
    for wait, event in course:
        now += wait
        if event == "ask" and not admits(state, now):
            continue  # it is turned away, and says nothing
        before, (state, words) = state, step(state, event, now, settings)
        assert bool(words) is (type(state) is not type(before)), "a change says why"
        if isinstance(before, Closed):
            failed = event in ("failed", "broke")
            failures += failed
            assert isinstance(state, Closed) or (failed and failures >= settings.minimum)
            assert not isinstance(state, Open) or state.until == now + settings.open
        else:
            failures = 0
        if isinstance(before, Open) and event == "ask":
            assert now >= before.until
            assert not under_way, "never two probes at once"
            under_way += 1
        if isinstance(before, HalfOpen) and event not in ("ask", "broke"):
            under_way -= 1
        assert under_way == isinstance(state, HalfOpen)
        assert not isinstance(state, HalfOpen) or not admits(state, now + 1e9)
        if isinstance(state, Open):
            assert settings.open <= state.period <= settings.open * 3
            assert state.until <= now + settings.open * 3, "it is probed again in bounded time"
        if isinstance(state, Closed) and not isinstance(before, Closed):
            assert isinstance(before, HalfOpen)
            assert event == "answered", "only an answer closes it"


@given(settings, st.floats(0, 5), st.integers(1, 12))
def test_a_long_outage_is_probed_once_a_period_and_ends_with_the_first_answer(
    settings: Breaker, late: float, probes: int
) -> None:
    state: State = Open(0.0, settings.open)
    now = 0.0
    for _ in range(probes):
        assert isinstance(state, Open)
        now = state.until + late
        state, _ = step(state, "ask", now, settings)
        assert isinstance(state, HalfOpen)
        state, _ = step(state, "failed", now, settings)
    assert isinstance(state, Open)
    state, _ = step(state, "ask", state.until, settings)
    assert step(state, "answered", now, settings)[0] == Closed(now)
