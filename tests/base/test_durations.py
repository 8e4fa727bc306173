"""Durations, shares and sizes mean what people write, and nothing else is taken."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tidegate.base.durations import format_duration, parse_duration, parse_share, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("800ms", 0.8), ("1h30m", 5400), ("1.5s", 1.5), ("30d", 2592000), ("2w", 1209600),
     ("0s", 0), ("250us", 0.00025), (" 5s ", 5)],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "5", "5 parsecs", "-5s", "1h 30m x", "s5", "1e3s", "9" * 400 + "s", "inf s", "1,5s"],
)
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="write 800ms"):
        parse_duration(text)


@given(st.floats(0, 1e7))
@example(0.9996)
@example(0.00099996)
@example(1e-7)
@example(3.41e-9)
@example(119.96)
@example(7199.9)
@example(1e9)
def test_a_duration_is_readable_and_says_the_same(seconds: float) -> None:
    text = format_duration(seconds)
    assert len(text) <= 8
    assert "e" not in text
    assert parse_duration(text) == pytest.approx(seconds, rel=0.006, abs=1e-9 + 5e-10)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.812, "812ms"), (3.412, "3.41s"), (0.9996, "1s"), (90, "90s"), (600, "10m"), (0, "0us")],
)
def test_the_shortest_form(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "share"), [("5%", 0.05), (0.05, 0.05), ("1", 1), (" 0.5 % ", 0.005)]
)
def test_shares(text: str | float, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize(
    "text", ["101%", "-1%", "nan", "nan%", "inf", "5%%", "", "many", 1.5, -0.1]
)
def test_no_shares(text: str | float) -> None:
    with pytest.raises(ValueError, match="is not a share"):
        parse_share(text)


@given(
    st.integers(0, 10**9), st.sampled_from([("", 1), ("KB", 1000), ("KiB", 1024), ("MiB", 1 << 20)])
)
def test_sizes(number: int, unit: tuple[str, int]) -> None:
    assert parse_size(f"{number}{unit[0]}") == number * unit[1]


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1.5MiB", "4 mib", "1e6", "iB", "4KiBB", "٣"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)
