from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.sdk.rules import HttpOrigin, delivery_of, may_carry_trace, origin_of, pause_after

GATEWAY = HttpOrigin("http", "localhost", 8080)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://127.0.0.1:8080/v1/chat/completions", GATEWAY),
        ("http://localhost:8080", GATEWAY),
        ("http://[::1]:8080/v1", GATEWAY),
        ("https://gw.example/v1", HttpOrigin("https", "gw.example", 443)),
        ("http://GW.example", HttpOrigin("http", "gw.example", 80)),
        ("unix:///run/x.sock", None),
        ("http://host:notaport/", None),
        ("http://", None),
        ("", None),
    ],
)
def test_origin(url: str, origin: HttpOrigin | None) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8081/v1",
        "https://127.0.0.1:8080/v1",
        "https://api.openai.com/v1",
        "http://127.0.0.1:8080.evil.example/v1",
        "http://127.0.0.1:8080@evil.example/v1",
    ],
)
def test_trace_context_goes_to_nobody_but_the_gateway(url: str) -> None:
    allowed, why = may_carry_trace(url, GATEWAY)
    assert not allowed
    assert url in why


def test_an_unknown_gateway_gets_nothing() -> None:
    assert may_carry_trace("http://127.0.0.1:8080", None)[0] is False


@given(st.text())
def test_any_text_is_an_origin_or_none(text: str) -> None:
    origin_of(text)
    origin_of("http://" + text)


@given(st.integers(1, 10_000))
def test_pauses_grow_and_end_at_half_a_minute(failures: int) -> None:
    assert 1 <= pause_after(failures) <= pause_after(failures + 1) <= 30


@pytest.mark.parametrize(
    ("status", "delivered", "again"),
    [(200, True, False), (202, True, False), (400, False, False), (413, False, False)]
    + [(status, False, True) for status in (401, 403, 429, 502, 503, 504)],
)
def test_verdicts(status: int, delivered: bool, again: bool) -> None:
    assert delivery_of(status)[:2] == (delivered, again)
