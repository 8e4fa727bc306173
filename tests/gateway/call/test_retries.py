"""Whether a model is asked again, after how long, and how much of that is allowed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.gateway.call.retries import (
    MOST_WAIT,
    PATIENCE,
    Move,
    Situation,
    backoff_wait,
    next_move,
    requested_wait,
)
from tidegate.gateway.targets import Failure, of_fault, of_status
from tidegate.gateway.wire.upstream import FAULTS, UpstreamFault

AT = Situation(
    tries=1, most=2, backoff=0.4, left=20.0, fallbacks=0, another_key=False, affordable=True,
    draw=0.5,
)  # fmt: skip
LIMITED = of_status(429, "rate_limit_exceeded", None, None)
QUOTA = of_status(429, "insufficient_quota", None, None)
REJECTED = of_status(401, None, None, None)
BUSY = of_status(503, None, None, None)


def asks(seconds: float) -> Failure:
    return of_status(429, None, None, None, seconds)


@pytest.mark.parametrize(
    ("failure", "at", "wait", "paid", "words"),
    [
        (BUSY, {}, 0.2, True, "tried again after 0.2 s"),
        (BUSY, {"tries": 2}, 0.4, True, "after 0.4 s"),
        (BUSY, {"tries": 3}, None, False, "3 tries are all"),
        (BUSY, {"most": 0}, None, False, "1 tries are all"),
        (BUSY, {"affordable": False}, None, False, "budget is used up"),
        (BUSY, {"left": 0.1}, None, False, "too long"),
        (BUSY, {"another_key": True}, 0.2, True, "after"),  # another key does not mend a server
        (LIMITED, {}, 0.2, True, "after"),
        (LIMITED, {"another_key": True}, 0.0, False, "another key"),
        (LIMITED, {"another_key": True, "affordable": False, "most": 0}, 0.0, False, "another key"),
        (REJECTED, {"another_key": True}, 0.0, False, "another key"),
        (REJECTED, {}, None, False, "no other key"),
        (QUOTA, {}, None, False, "not tried again"),
        (QUOTA, {"another_key": True}, 0.0, False, "another key"),
        (asks(3), {}, 3.15, True, "after 3.15 s"),  # not earlier, and not all at once
        (asks(3), {"draw": 0.0}, 3.0, True, "after 3 s"),
        (asks(30), {}, None, False, "too long"),
        (asks(6), {}, 6.3, True, "after"),
        (asks(6), {"fallbacks": 1}, None, False, "too long"),  # another one could answer at once
        (asks(3), {"fallbacks": 1, "left": 6.0}, None, False, "too long"),
        (of_status(400, None, None, None), {}, None, False, "not tried again"),
        (of_status(404, None, None, None), {}, None, False, "not tried again"),
    ],
)
def test_what_follows_a_failure(
    failure: Failure, at: dict[str, Any], wait: float | None, paid: bool, words: str
) -> None:
    move = next_move(failure, msgspec.structs.replace(AT, **at))
    assert move.wait == (None if wait is None else pytest.approx(wait))
    assert move.paid is paid
    assert words in move.reason


AGAIN = {"upstream_unreachable", "upstream_cut"}


@pytest.mark.parametrize("code", sorted(FAULTS))
def test_what_may_have_been_paid_for_or_took_its_time_is_not_sent_again(code: str) -> None:
    move = next_move(of_fault(UpstreamFault(code, "words")), AT)
    assert (move.wait is not None) is (code in AGAIN)


situations = st.builds(
    Situation,
    tries=st.integers(1, 12),
    most=st.integers(0, 10),
    backoff=st.floats(0, 100),
    left=st.floats(-5, 1000),
    fallbacks=st.integers(0, 3),
    another_key=st.booleans(),
    affordable=st.booleans(),
    draw=st.floats(0, 1, exclude_max=True),
)
failures = st.builds(
    of_status,
    st.integers(100, 599),
    st.sampled_from([None, "insufficient_quota", "content_policy_violation"]),
    st.none(),
    st.none(),
    st.none() | st.floats(0, 86400),
)


@given(failures, situations)
def test_any_move(failure: Failure, at: Situation) -> None:
    move: Move = next_move(failure, at)
    assert move.reason
    if move.wait is None:
        assert not move.paid
    elif move.paid:
        assert failure.again
        assert at.affordable
        assert at.tries <= at.most
        assert 0 <= move.wait < at.left, "it ends before the deadline"
        assert move.wait >= (failure.wait or 0), "never earlier than the provider says"
        assert not at.fallbacks or move.wait < PATIENCE
    else:
        assert at.another_key
        assert move.wait == 0


@given(st.integers(-3, 10_000), st.floats(0, 1000), st.floats(0, 1, exclude_max=True))
def test_backoff_is_bounded(tries: int, base: float, draw: float) -> None:
    wait = backoff_wait(tries, base, draw)
    assert 0 <= wait <= min(MOST_WAIT, base * 2.0 ** max(0, min(tries - 1, 32)))
    assert backoff_wait(tries, base, 0.0) == 0


def test_backoff_doubles() -> None:
    assert [backoff_wait(tries, 0.5, 0.5) for tries in (1, 2, 3, 4, 5, 6)] == [
        *(0.25, 0.5, 1.0, 2.0, 4.0, 4.0)
    ]


NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT
TOLD: list[tuple[dict[str, str], float | None]] = [
    ({}, None),
    ({"content-type": "application/json"}, None),
    ({"retry-after": "7"}, 7),
    ({"retry-after": "0"}, 0),
    ({"retry-after": " 1.5 "}, 1.5),
    ({"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30),
    ({"retry-after": "Friday, 15-Jan-27 08:00:30 GMT"}, 30),
    ({"retry-after": "Fri Jan 15 08:00:30 2027"}, 30),
    ({"retry-after": "Fri, 15 Jan 2027 07:00:00 GMT"}, 0),  # our clock may be ahead: it is over
    ({"retry-after-ms": "250"}, 0.25),
    ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
    ({"retry-after-ms": "soon", "retry-after": "7"}, 7),
    ({"x-ratelimit-reset-requests": "6m0s"}, 360),
    ({"x-ratelimit-reset-tokens": "120ms"}, 0.12),
    ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m"}, 360),
    (
        {
            "x-ratelimit-reset-requests": "1h",
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-reset-tokens": "2s",
            "x-ratelimit-remaining-tokens": "0",
        },
        2,
    ),
    ({"x-ratelimit-reset-requests": "1h", "x-ratelimit-remaining-requests": "59"}, None),
    ({"x-ratelimit-reset": "12"}, 12),
    ({"x-ratelimit-reset": f"{NOW + 40:.0f}"}, 40),
    ({"x-ratelimit-reset": f"{NOW - 40:.0f}"}, None),
    ({"ratelimit-reset": "9"}, 9),
    (
        {
            "anthropic-ratelimit-requests-reset": "2027-01-15T08:00:20Z",
            "anthropic-ratelimit-requests-remaining": "0",
        },
        20,
    ),
    ({"anthropic-ratelimit-tokens-reset": "2027-01-15T10:00:20+02:00"}, 20),
    ({"retry-after": "3", "x-ratelimit-reset": "12"}, 3),
    ({"retry-after": "soon", "x-ratelimit-reset": "12"}, None),
    ({"x-ratelimit-reset": "soon"}, None),
    *(({"retry-after": value}, None) for value in ("-1", "86401", "nan", "inf", "-inf", "1e400")),
    *(({"retry-after": value}, None) for value in ("", "soon", "7 s", "\xff", "Fri", "9" * 40)),
    ({"retry-after": "Fri, 32 Jan 2027 99:00:30 GMT"}, None),
    ({"retry-after": "Fri, 15 Jan 99999 08:00:30 GMT"}, None),
    ({"retry-after": "Sun, 17 Jan 2027 08:00:30 GMT"}, None),  # later than a day
    ({"retry-after-ms": "-5"}, None),
]


@pytest.mark.parametrize(("headers", "wait"), TOLD)
def test_what_a_provider_asks_for(headers: dict[str, str], wait: float | None) -> None:
    raw = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    assert requested_wait(raw, NOW) == (None if wait is None else pytest.approx(wait, abs=1e-3))


NAMES = [
    *(b"retry-after", b"retry-after-ms", b"x-ratelimit-reset", b"x-ratelimit-reset-tokens"),
    *(b"x-ratelimit-remaining-tokens", b"anthropic-ratelimit-requests-reset"),
    *(b"anthropic-ratelimit-requests-remaining", b"ratelimit-reset"),
]
VALUES = st.one_of(
    st.binary(max_size=80),
    st.floats().map(lambda number: str(number).encode()),
    st.integers().map(lambda number: str(number).encode()),
    st.from_regex(rb"[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,6} \d\d:\d\d:\d\d [A-Z+\-0-9]{1,6}"),
    st.from_regex(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)?"),
    st.from_regex(rb"\d{1,60}(us|ms|s|m|h|d|w)"),
)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES), st.floats(0, 4e9))
def test_no_header_breaks_anything(headers: dict[bytes, bytes], now: float) -> None:
    wait = requested_wait(headers, now)
    assert wait is None or 0 <= wait <= 86400
