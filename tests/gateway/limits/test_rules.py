"""What a request may use at worst is not understated by the way its length is written."""

from __future__ import annotations

import pytest

from tests.gateway.calls import CHAT
from tidegate.gateway.limits.rules import DEFAULT_OUTPUT, worst_case
from tidegate.gateway.ports import Ask

MOST = 1 << 40


@pytest.mark.parametrize(
    ("asked", "output"),
    [
        ({"max_tokens": b"5"}, 5),
        ({"max_tokens": b"1e5"}, 100_000),
        ({"max_tokens": b"100000.0"}, 100_000),
        ({"max_tokens": b"10000000000000000"}, MOST),
        ({"max_tokens": b"9" * 400}, MOST),
        ({"n_predict": b"1e999"}, MOST),
        ({"max_tokens": b"5", "max_completion_tokens": b"7"}, 7),
        ({"max_tokens": b"null"}, DEFAULT_OUTPUT),
        ({"max_tokens": b"-1"}, DEFAULT_OUTPUT),
        ({"n_predict": b'"7"'}, DEFAULT_OUTPUT),
        ({}, DEFAULT_OUTPUT),
    ],
)
def test_every_spelling_of_a_length(asked: dict[str, bytes], output: int) -> None:
    assert worst_case(Ask(CHAT, {"messages": b"[]", **asked})).output == output


def test_choices_multiply_and_stay_bounded() -> None:
    for n, output in ((3, 30), (10**30, MOST), (-1, 10), (0, 10)):
        ask = CHAT.parse(b'{"model":"m","max_tokens":10,"n":%d}' % n).ask
        assert worst_case(ask).output == output
