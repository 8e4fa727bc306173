"""The bench's arithmetic: a wrong percentile or ratio would be a wrong claim."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.gateway import figures

_FLOATS = st.lists(st.floats(0, 1e6, allow_nan=False), min_size=1, max_size=60)


@settings(max_examples=100, deadline=None)
@given(values=_FLOATS, share=st.floats(0, 1))
def test_percentile_is_the_linear_quantile(values: list[float], share: float) -> None:
    assert figures.percentile(values, share) == pytest.approx(
        float(np.quantile(values, share)), rel=1e-9, abs=1e-6
    )


def test_percentile_of_nothing_is_no_number() -> None:
    assert math.isnan(figures.percentile([], 0.5))


def test_a_chunk_is_held_back_when_its_successor_had_already_left() -> None:
    sent = [0, 5, 10, 15]
    assert figures.held_back(sent, [1, 6, 11, 16]) == 0
    assert figures.held_back(sent, [6, 6, 11, 16]) == 1  # the first waited for the second
    assert figures.held_back(sent, [16, 16, 16, 16]) == 3  # all at once, the last is not judged
    assert figures.held_back([0], [100]) == 0


def test_medians_take_the_middle_and_sum_what_is_counted() -> None:
    rounds = [
        {"cpu_us": 10.0, "requests": 100, "errors": 0, "by": {"gateway": 1.0}},
        {"cpu_us": 90.0, "requests": 200, "errors": 2, "by": {"gateway": 3.0}},
        {"cpu_us": 20.0, "requests": 300, "errors": 0, "by": {"gateway": 2.0}},
    ]
    assert figures.medians(rounds) == {
        "cpu_us": 20.0,
        "requests": 600,
        "errors": 2,
        "by": {"gateway": 2.0},
    }


@pytest.mark.parametrize(
    ("above", "below"), [(None, 1.0), (1.0, None), (1.0, 0.0), (math.nan, 1.0), (1.0, math.nan)]
)
def test_a_ratio_of_what_is_missing_is_none(above: float | None, below: float | None) -> None:
    assert figures.ratio(above, below) is None


def _systems(miss: float, hit: float, tensorzero: float, litellm: float) -> dict[str, object]:
    return {
        "tidegate": {
            "miss": {"cpu_us": miss, "cpu_us_by_group": {"gateway": miss / 2}},
            "hit": {"cpu_us": hit, "cpu_us_by_group": {"gateway": hit / 2}},
            "stream": {"added_first_token_ms": {"p50": 0.6}, "held_back_share": 0.0},
        },
        "tensorzero": {"miss": {"cpu_us": tensorzero}},
        "litellm": {"miss": {"cpu_us": litellm}},
        "nginx": {"stream": {"added_first_token_ms": {"p50": 0.1}, "held_back_share": 0.0}},
        "direct": {"stream": {"held_back_share": 0.0}},
    }


def _verdicts(systems: dict[str, object], memory: dict[str, object] | None) -> list[bool | None]:
    return [bar.reached for bar in figures.bars(systems, memory)]


def test_bars_at_their_limits_are_reached() -> None:
    systems = _systems(miss=200.0, hit=100.0, tensorzero=200.0, litellm=8000.0)
    assert _verdicts(systems, {"growth": 0.05}) == [True] * 8


def test_bars_beyond_their_limits_are_not_reached() -> None:
    systems = _systems(miss=401.0, hit=201.0, tensorzero=200.0, litellm=8000.0)
    systems["tidegate"]["stream"] = {  # type: ignore[index]
        "added_first_token_ms": {"p50": 0.66},
        "held_back_share": 0.01,
    }
    assert _verdicts(systems, {"growth": 0.051}) == [False] * 8


def test_the_first_token_bar_is_one_and_a_half_times_the_floor_and_half_a_millisecond() -> None:
    bar = figures.bars(_systems(1.0, 1.0, 1.0, 1.0), None)[5]
    assert (bar.value, bar.limit) == (0.6, pytest.approx(0.65))


def test_bars_that_a_run_did_not_measure_have_no_verdict() -> None:
    assert _verdicts({"nginx": {}}, None) == [None] * 8


def _chat(**change: float) -> dict[str, float]:
    return {"errors": 0, "requests": 100, "upstream_share": 1.0, "receipts_share": 1.0, **change}


def test_a_clean_run_needs_no_warning() -> None:
    systems = {"nginx": {"miss": _chat()}, "tidegate": {"hit": _chat(upstream_share=0.0)}}
    assert figures.warnings(systems, 0.05) == []


@pytest.mark.parametrize(
    ("name", "case", "change", "word"),
    [
        ("nginx", "miss", {"errors": 3}, "3 of 100 failed"),
        ("portkey", "miss", {"upstream_share": 0.5}, "only 50.0%"),
        ("tidegate", "hit", {"upstream_share": 0.2}, "20.0% of the requests reached"),
        ("tidegate", "miss", {"receipts_share": 0.99}, "receipts"),
    ],
)
def test_what_would_mislead_is_told(
    name: str, case: str, change: dict[str, float], word: str
) -> None:
    (warning,) = figures.warnings({name: {case: _chat(**change)}}, 0.0)
    assert word in warning


def test_a_noisy_machine_is_told() -> None:
    assert figures.warnings({}, 0.5) == ["the machine was not quiet: 0.50 cores did other work"]
