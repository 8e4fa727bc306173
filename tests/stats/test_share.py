"""Shares of the P95 add up to one, merge by addition, and name the part that makes the tail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.stats.share import AT_LEAST, OTHER, Shelves, shares, weights_near

parts = st.tuples(*[st.floats(min_value=0, max_value=1e5)] * 3)


@given(st.lists(parts, min_size=1, max_size=80))
def test_shares_of_all_parts_and_other_add_up_to_one(rows: list[tuple[float, ...]]) -> None:
    a, b, rest = (np.array(column) for column in zip(*rows, strict=True))
    result = shares(Shelves.of(a + b + rest, {"a": a, "b": b}))
    if result:
        assert sum(result.values()) == pytest.approx(1)
        assert min(result.values()) >= 0


@given(st.lists(parts, min_size=1, max_size=40), st.lists(parts, min_size=1, max_size=40))
def test_merged_shelves_are_shelves_of_all(
    first: list[tuple[float, ...]], second: list[tuple[float, ...]]
) -> None:
    def of(rows: list[tuple[float, ...]]) -> Shelves:
        a, b, rest = (np.array(column) for column in zip(*rows, strict=True))
        return Shelves.of(a + b + rest, {"a": a, "b": b})

    whole = of(first + second)
    for merged in (
        Shelves.merged([of(first), of(second)]),
        Shelves.merged_from([of(second).encode(), of(first).encode()]),
    ):
        assert np.array_equal(merged.count, whole.count)
        assert merged.total == pytest.approx(whole.total)
        assert merged.parts["a"] == pytest.approx(whole.parts["a"], rel=1e-5)


def test_the_part_that_makes_the_tail_gets_the_share_though_its_own_mean_is_small() -> None:
    rng = np.random.default_rng(1)
    n = 20_000
    steady = rng.normal(100, 5, n).clip(1)
    rare = np.where(rng.random(n) < 0.12, rng.normal(900, 50, n), 1.0)
    result = shares(Shelves.of(steady + rare, {"steady": steady, "rare": rare}))
    assert result["rare"] == pytest.approx(0.9, abs=0.02)
    assert rare.mean() / (steady + rare).mean() < 0.6
    assert result[OTHER] == pytest.approx(0, abs=1e-6)


def test_the_allotment_of_a_sum_of_normals_is_its_closed_form() -> None:
    # For independent normals E[X_i | S = q] = m_i + s_i^2 / s^2 (q - m).
    rng = np.random.default_rng(2)
    n = 400_000
    x, y = rng.normal(100, 10, n), rng.normal(100, 30, n)
    q = float(np.quantile(x + y, 0.95))
    expected = (100 + 900 / 1000 * (q - 200)) / q
    result = shares(Shelves.of(x + y, {"x": x, "y": y}))
    assert result["y"] == pytest.approx(expected, abs=0.01)


def test_a_piece_of_a_part_has_a_share_but_is_not_summed() -> None:
    total = np.full(50, 100.0)
    shelves = Shelves.of(total, {"model": total * 0.8, "model\tcall": total * 0.7})
    result = shares(shelves, within={"model\tcall": "model"})
    assert result == pytest.approx({"model": 0.8, "model\tcall": 0.7, OTHER: 0.2})


@pytest.mark.parametrize(("n", "expected"), [(3, 3), (10, 10), (50, AT_LEAST), (1000, 90)])
def test_the_neighbourhood_holds_nine_percent_or_at_least_ten(n: int, expected: float) -> None:
    shelves = Shelves.of(np.geomspace(1, 1000, n), {})
    assert float(weights_near(shelves.count) @ shelves.count) == pytest.approx(expected, abs=1e-6)


def test_empty_shelves_have_no_shares_and_foreign_bytes_are_refused() -> None:
    assert shares(Shelves.merged([])) == {}
    with pytest.raises(ValueError, match="not shelves"):
        Shelves.merged_from([b"garbage"])
