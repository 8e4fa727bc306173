"""What one request cost: unknown stays unknown, what was not billed is 0."""

from __future__ import annotations

import pytest

from tests.gateway.releases import sample_release
from tidegate.base.money import Usage
from tidegate.gateway.record.rules import cost
from tidegate.gateway.values import Call
from tidegate.ledger.receipts import Attempt

MODELS = sample_release("http://127.0.0.1:9/v1").models
USAGE = Usage(prompt=1_000_000, completion=1_000_000)


def failed(status: int | None, code: str) -> Attempt:
    return Attempt(model="small", ms=1.0, status=status, code=code)


def call(**what: object) -> Call:
    made = Call("0" * 32, 0.0, 0)
    for name, value in what.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ({"usage": USAGE, "model": "small"}, 3.0),
        ({"usage": USAGE, "model": "unpriced"}, None),
        ({"usage": USAGE, "model": "gone"}, None),
        ({"usage": USAGE, "model": None}, None),
        ({"cache": "hit", "replayed": USAGE, "model": "small"}, 0.0),
        ({"cache": "shared", "model": "unpriced"}, 0.0),
        ({}, 0.0),
        ({"attempts": [failed(429, "upstream_rate_limited")]}, 0.0),
        ({"attempts": [failed(500, "upstream_error")]}, 0.0),
        ({"attempts": [failed(None, "upstream_unreachable")]}, 0.0),
        ({"attempts": [failed(None, "upstream_connect_timeout")]}, 0.0),
        ({"attempts": [failed(None, "upstream_first_token_timeout")]}, None),
        ({"attempts": [failed(None, "upstream_total_timeout")]}, None),
        ({"attempts": [failed(None, "client_gone")]}, None),
        ({"attempts": [failed(200, "upstream_cut")]}, None),
        ({"attempts": [failed(500, "upstream_error"), failed(200, "upstream_cut")]}, None),
        ({"usage": USAGE, "model": "small", "attempts": [failed(500, "upstream_error")]}, 3.0),
    ],
)
def test_costs(what: dict[str, object], expected: float | None) -> None:
    found = cost(call(**what), MODELS)
    assert found == (None if expected is None else pytest.approx(expected))
    assert found is None or isinstance(found, float)
