"""The number of series is bounded, and labels are escaped."""

from __future__ import annotations

import pytest

from tests.ledger.samples import make_receipt
from tests.ledger.test_rollups import of
from tidegate.console.metrics import MOST_NAMES, render_totals
from tidegate.gateway.wire.upstream import FAULTS
from tidegate.ledger.receipts import Attempt


def test_routes_beyond_the_bound_are_summed_up() -> None:
    totals = [
        row
        for n in range(MOST_NAMES + 50)
        for row in (
            ("route", f"r{n}", "count", float(1000 - n)),
            ("route", f"r{n}", "outcome.served", 2.0),
        )
    ]
    lines = [x for x in render_totals(totals) if x.startswith("tidegate_requests_total{")]
    assert len(lines) == MOST_NAMES + 1
    assert 'tidegate_requests_total{route="(other)",outcome="served"} 100' in lines


def test_labels_are_escaped_and_sums_keep_their_fractions() -> None:
    lines = list(
        render_totals([("route", 'a"b\\c\nd', "count", 1.0), ("route", 'a"b\\c\nd', "cost", 0.125)])
    )
    assert 'tidegate_cost_dollars_total{route="a\\"b\\\\c\\nd"} 0.125' in lines


@pytest.mark.parametrize("code", sorted({*FAULTS, "upstream_breaker_open", "hedge_lost"}))
def test_each_way_of_failing_has_a_series_of_its_own(code: str) -> None:
    """From the try on the receipt to the page: every clock of a route among them."""
    tries = (Attempt(model="small", ms=1.0, code=code), Attempt(model="spare", ms=1.0, status=200))
    tallies = of([make_receipt(at=1.0, attempts=tries)]).tallies
    totals = [("route", "chat", name, value) for name, value in tallies.items()]
    lines = list(render_totals(totals))
    found = [line for line in lines if line.startswith("tidegate_failed_attempts_total{")]
    assert found == [f'tidegate_failed_attempts_total{{route="chat",code="{code}"}} 1']
