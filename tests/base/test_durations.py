"""Durations, shares and sizes mean what a person wrote, or are refused with what to write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.base.durations import parse_duration, parse_share, parse_size
from tidegate.spec.scalars import duration_text, share_text, size_text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("800ms", 0.8),
        ("5s", 5),
        ("1h30m", 5400),
        ("1.5 h", 5400),
        ("250us", 0.00025),
        ("2w", 1209600),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "1 hour", "h", "-1s", "1h!", "1s,2s", "1e3s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration; write"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "share"), [("5%", 0.05), (0.05, 0.05), (1, 1.0), (" 99.5% ", 0.995)]
)
def test_shares(text: str | float, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "%", "101%", "-1%", "five", "nan%", 1.5, float("nan")])
def test_no_shares(text: str | float) -> None:
    with pytest.raises(ValueError, match="not a share; write"):
        parse_share(text)


@pytest.mark.parametrize(
    ("text", "size"), [("4MiB", 4 << 20), ("500KB", 500_000), ("1 GiB", 1 << 30), (7, 7), ("7B", 7)]
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "4 megs", "-1", "1.5MiB", "4mib", "iB", "1iB", "9" * 30, -1])
def test_no_sizes(text: str | int) -> None:
    with pytest.raises(ValueError, match="not a size; write"):
        parse_size(text)


@given(milliseconds=st.integers(0, 10**12))
def test_a_duration_is_written_so_that_it_is_read_the_same(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(duration_text(seconds)) == pytest.approx(seconds)


@given(size=st.integers(0, 10**14))
def test_a_size_is_written_so_that_it_is_read_the_same(size: int) -> None:
    assert parse_size(size_text(size)) == size


@given(points=st.integers(0, 100_000))
def test_a_share_is_written_so_that_it_is_read_the_same(points: int) -> None:
    assert parse_share(share_text(points / 100_000)) == pytest.approx(points / 100_000)
