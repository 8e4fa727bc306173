"""The number of series is bounded, and labels are escaped."""

from __future__ import annotations

from tidegate.console.metrics import MOST_NAMES, render_totals


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
