"""What a call cost; an unknown price is never 0."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.base.money import Price, Usage, cost_of, reported_usage

TOKENS = st.integers(0, 10**7)
RATES = st.one_of(st.none(), st.floats(0, 1000))


@pytest.mark.parametrize(
    ("usage", "price", "cost"),
    [
        (Usage(prompt=1_000_000, completion=500_000), Price(input=2.0, output=4.0), 4.0),
        (Usage(prompt=100, cached=40), Price(input=1.0, cached_input=0.5), 80e-6),
        (Usage(prompt=100, cached=40), Price(input=1.0), 100e-6),
        (Usage(prompt=100), Price(input=0.0), 0.0),
        (Usage(prompt=100), Price(), None),
        (Usage(prompt=100, completion=1), Price(input=1.0), None),
        (Usage(prompt=100), Price(input=1.0), 100e-6),
        (Usage(), Price(), 0.0),
        (Usage(prompt=40, cached=40), Price(cached_input=1.0), 40e-6),
    ],
)
def test_costs(usage: Usage, price: Price, cost: float | None) -> None:
    found = cost_of(usage, price)
    assert found == (None if cost is None else pytest.approx(cost))


@given(
    prompt=TOKENS, completion=TOKENS, share=st.floats(0, 1), rates=st.tuples(RATES, RATES, RATES)
)
def test_a_cost_is_known_exactly_when_every_price_it_needs_is(
    prompt: int,
    completion: int,
    share: float,
    rates: tuple[float | None, float | None, float | None],
) -> None:
    cached = int(prompt * share)
    price = Price(input=rates[0], output=rates[1], cached_input=rates[2])
    cost = cost_of(Usage(prompt=prompt, completion=completion, cached=cached), price)
    cached_rate = rates[2] if rates[2] is not None else rates[0]
    needed = [(prompt - cached, rates[0]), (cached, cached_rate), (completion, rates[1])]
    if any(tokens and rate is None for tokens, rate in needed):
        assert cost is None
    else:
        assert cost == pytest.approx(sum(t * (r or 0) for t, r in needed) / 1e6)


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ((None, None), None),
        ((5, 2), Usage(prompt=5, completion=2)),
        ((5, None), Usage(prompt=5)),
        ((5, 2, 3, 1), Usage(prompt=5, completion=2, cached=3, reasoning=1)),
        ((5, 2, 9, -1), Usage(prompt=5, completion=2)),
        ((-1, 2), None),
        ((5, -1), None),
        ((2**64 - 1, 2), None),
        ((5, 2**63 - 1), None),
    ],
)
def test_what_a_provider_cannot_have_billed_is_unknown(
    told: tuple[int, ...], usage: Usage | None
) -> None:
    assert reported_usage(*told) == usage
