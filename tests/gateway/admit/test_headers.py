"""Headers that make no sense are passed over; those that do are read as the standards say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.gateway.admit.headers import bearer, journey_of, parse_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    "value",
    [f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00", f"cc-{TRACE}-{SPAN}-01",
     f"cc-{TRACE}-{SPAN}-01-what-comes"],
)  # fmt: skip
def test_a_traceparent(value: str) -> None:
    assert parse_traceparent(value) == (TRACE, SPAN)


@pytest.mark.parametrize(
    "value",
    ["", "00", f"ff-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01-more", f"cc-{TRACE}-{SPAN}-01x",
     f"00-{TRACE.upper()}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01",
     f"zz-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-0g", f"00-{TRACE[:-1]}g-{SPAN}-01",
     f"00_{TRACE}_{SPAN}_01"],
)  # fmt: skip
def test_no_traceparent(value: str) -> None:
    assert parse_traceparent(value) == (None, None)


@given(st.text(max_size=80))
def test_nonsense_is_no_error(value: str) -> None:
    parse_traceparent(value)
    journey_of(value)
    bearer(value)


@pytest.mark.parametrize(
    ("baggage", "journey"),
    [
        ("tidegate.journey=get-plan", "get-plan"),
        ("a=1, tidegate.journey = ask%20coach ;prop=1,b=2", "ask coach"),
        ("tidegate.journey=", None),
        ("xtidegate.journey=no", None),
        ("tidegate.journey=" + "x" * 200, "x" * 64),
        ("", None),
    ],
)
def test_the_journey_in_baggage(baggage: str, journey: str | None) -> None:
    assert journey_of(baggage) == journey


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer tg-1", "tg-1"), ("bearer  tg-1 ", "tg-1"), ("Basic abc", None), ("Bearer", None),
     (None, None), ("", None), ("tg-1", None)],
)  # fmt: skip
def test_bearer(header: str | None, token: str | None) -> None:
    assert bearer(header) == token
