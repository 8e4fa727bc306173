"""Calendar windows in UTC, and the names of counters."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.stores.windows import Calendar, counter_stem, grain_of, window_at

CALENDARS: tuple[Calendar, ...] = ("hour", "day", "week", "month")
times = st.floats(0, 4_000_000_000)


@given(at=times, every=st.sampled_from(CALENDARS))
def test_windows_hold_their_time_and_follow_each_other_without_a_gap(
    at: float, every: Calendar
) -> None:
    window = window_at(every, at)
    assert window.start <= at < window.end
    after, before = window_at(every, window.end), window_at(every, window.start - 0.001)
    assert after.start == window.end
    assert before.end == window.start
    assert len({before.name, window.name, after.name}) == 3


@pytest.mark.parametrize(
    ("every", "at", "name", "start", "end"),
    [
        ("hour", "2026-11-25T09:59:59", "h2026-11-25T09", "2026-11-25T09:00", "2026-11-25T10:00"),
        ("day", "2026-11-25T23:59:59", "d2026-11-25", "2026-11-25", "2026-11-26"),
        ("week", "2026-11-29T23:59:59", "w2026-11-23", "2026-11-23", "2026-11-30"),
        ("month", "2028-02-29T12:00:00", "m2028-02", "2028-02-01", "2028-03-01"),
        ("month", "2026-12-31T23:59:59", "m2026-12", "2026-12-01", "2027-01-01"),
    ],
)
def test_windows_are_those_of_the_calendar(
    every: Calendar, at: str, name: str, start: str, end: str
) -> None:
    def seconds(text: str) -> float:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()

    window = window_at(every, seconds(at))
    assert (window.name, window.start, window.end) == (name, seconds(start), seconds(end))


def test_a_bucket_has_one_window_for_ever() -> None:
    assert window_at(None, 0) == window_at(None, 4e9)


def test_counters_are_named_by_limit_unit_and_window() -> None:
    assert counter_stem("tenant-spend", "dollars", "d2026-11-25") == (
        "tg:l:tenant-spend:d:d2026-11-25:"
    )


@given(lease=st.floats(1, 100_000))
def test_a_counter_has_few_different_ends_of_leases(lease: float) -> None:
    grain = grain_of(lease)
    assert lease * 1000 / grain <= 33
    assert grain == 1000 or grain < lease * 1000
