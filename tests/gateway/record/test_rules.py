"""What one request cost: unknown stays unknown, what was not billed is 0."""

from __future__ import annotations

import pytest

from tests.gateway.releases import sample_release
from tidegate.base.money import Usage
from tidegate.gateway.plan import CountedLimit
from tidegate.gateway.record.rules import cost, used_of
from tidegate.ledger.receipts import Attempt
from tidegate.stores.windows import Unit

MODELS = sample_release("http://127.0.0.1:9/v1").models
USAGE = Usage(prompt=1_000_000, completion=1_000_000)


def failed(status: int | None, code: str) -> Attempt:
    return Attempt(model="small", ms=1.0, status=status, code=code)


def billed(attempts: list[Attempt]) -> list[tuple[Attempt, Usage | None]]:
    return [(one, one.usage) for one in attempts]


def answered(model: str, usage: Usage | None = USAGE) -> Attempt:
    return Attempt(model=model, ms=1.0, status=200, usage=usage)


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([answered("small")], 3.0),
        ([answered("unpriced")], None),
        ([answered("gone")], None),
        ([answered("small", None)], None),
        ([], 0.0),  # also of an answer from the cache
        ([failed(429, "upstream_rate_limited")], 0.0),
        ([failed(500, "upstream_error")], 0.0),
        ([failed(None, "upstream_unreachable")], 0.0),
        ([failed(None, "upstream_connect_timeout")], 0.0),
        ([failed(None, "upstream_breaker_open")], 0.0),
        ([failed(None, "upstream_key_rejected")], 0.0),
        ([failed(None, "upstream_rate_limited")], 0.0),
        ([failed(None, "upstream_cut")], None),
        ([failed(503, "upstream_error"), failed(None, "upstream_cut")], None),
        ([failed(None, "upstream_first_token_timeout")], None),
        ([failed(None, "upstream_total_timeout")], None),
        ([failed(None, "client_gone")], None),
        ([failed(200, "upstream_cut")], None),
        ([failed(500, "upstream_error"), failed(200, "upstream_cut")], None),
        ([failed(500, "upstream_error"), answered("small")], 3.0),
    ],
)
def test_costs(attempts: list[Attempt], expected: float | None) -> None:
    found = cost(billed(attempts), MODELS)
    assert found == (None if expected is None else pytest.approx(expected))
    assert found is None or isinstance(found, float)


def line(unit: Unit) -> CountedLimit:
    return CountedLimit(
        name="l", stem="tg:l:l:", unit=unit, calendar="day", per="app", scope="app", covers=3,
        models=frozenset(("small",)), charge=False, capacity=10**12, rate=0, ttl=1, closed=False,
        prompt_nano=0.0, output_nano=0.0, most=("", ""), remaining="", reset="",
    )  # fmt: skip


SPARE = Attempt(model="spare", ms=1.0, status=200)
WELL = Attempt(model="small", ms=1.0, status=200)


@pytest.mark.parametrize(
    ("attempts", "requests", "tokens"),
    [
        ([failed(503, "upstream_error"), failed(429, "upstream_rate_limited"), WELL], 3, 10),
        ([failed(None, "upstream_breaker_open"), SPARE], 0, 0),
        ([failed(None, "upstream_key_rejected"), SPARE], 0, 0),
        ([failed(None, "upstream_rate_limited"), SPARE], 0, 0),
        ([failed(None, "upstream_unreachable"), WELL], 1, 10),
        ([failed(None, "upstream_connect_timeout"), SPARE], 0, 0),
        ([failed(None, "upstream_cut"), WELL], 2, 510),  # it may be billed, nobody knows for what
        ([failed(401, "upstream_key_rejected"), SPARE], 1, 0),  # it was sent, so it was counted
    ],
)
def test_what_a_limit_of_a_model_counts(
    attempts: list[Attempt], requests: int, tokens: int
) -> None:
    made = [*attempts[:-1], answered(attempts[-1].model, Usage(prompt=4, completion=6))]
    assert used_of(billed(made), line("requests"), 1, MODELS) == requests
    assert used_of(billed(made), line("tokens"), 500, MODELS) == tokens


def test_what_was_never_sent_counts_for_nothing_when_all_failed() -> None:
    made = [failed(None, "upstream_breaker_open")] * 3
    units: tuple[Unit, ...] = ("requests", "tokens", "dollars")
    assert [used_of(billed(made), line(unit), 500, MODELS) for unit in units] == [0, 0, 0]
