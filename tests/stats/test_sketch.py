"""The stated error holds for all inputs, and merging in any order is building at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.stats.sketch import BUCKETS, HIGHEST, LOWEST, RELATIVE_ERROR, Sketch

durations = st.floats(min_value=LOWEST, max_value=HIGHEST, allow_nan=False)
samples = st.lists(durations, min_size=1, max_size=200)


@given(samples, st.floats(min_value=0, max_value=1))
def test_every_quantile_is_within_the_stated_relative_error(values: list[float], q: float) -> None:
    exact = sorted(values)[max(math.ceil(q * len(values)), 1) - 1]
    answer = Sketch.of(values).quantile(q)
    assert answer is not None
    assert abs(answer - exact) <= (RELATIVE_ERROR + 1e-9) * exact


def test_the_p95_of_few_values_is_their_largest() -> None:
    assert Sketch.of([1.0, 2.0, 30.0]).quantile(0.95) == pytest.approx(30, rel=RELATIVE_ERROR)
    assert Sketch.of([1.0, 2.0, 30.0]).quantile(0.5) == pytest.approx(2, rel=RELATIVE_ERROR)


@given(samples, samples, samples)
def test_merging_in_any_order_is_building_at_once(
    a: list[float], b: list[float], c: list[float]
) -> None:
    x, y, z = Sketch.of(a), Sketch.of(b), Sketch.of(c)
    at_once = Sketch.of(a + b + c)
    assert (x + y) + z == at_once
    assert x + (y + z) == at_once
    assert z + x + y == at_once
    assert Sketch.merged([x, y, z]) == at_once
    assert Sketch.merged_from([x.encode(), y.encode(), z.encode()]) == at_once


@given(st.lists(st.floats(min_value=-10, max_value=1e12), max_size=100))
def test_stored_bytes_give_the_same_sketch_back(values: list[float]) -> None:
    sketch = Sketch.of(values)
    assert Sketch.decode(sketch.encode()) == sketch
    assert sketch.count == len(values)


def test_the_whole_range_fits_its_buckets_and_the_ends_are_held() -> None:
    sketch = Sketch.of([0.0, LOWEST / 2, -3.0, HIGHEST * 5])
    assert sketch.quantile(0) == 0.0
    assert sketch.quantile(1) == pytest.approx(HIGHEST, rel=2 * RELATIVE_ERROR)
    assert BUCKETS < 65536  # positions are stored in 2 bytes


def test_counts_beyond_four_bytes_are_kept() -> None:
    counts = np.zeros(BUCKETS, np.int64)
    counts[7] = 1 << 40
    assert Sketch.decode(Sketch(counts).encode()).count == 1 << 40


def test_an_empty_sketch_has_no_quantile() -> None:
    assert Sketch().quantile(0.95) is None
    assert Sketch.merged_from([]) == Sketch()


@pytest.mark.parametrize("foreign", [b"", b"\x01", b"\x09\x04\x00\x00", b"\x01\x04\x02\x00abc"])
def test_foreign_bytes_are_refused(foreign: bytes) -> None:
    with pytest.raises(ValueError, match="not a sketch"):
        Sketch.decode(foreign)


def test_nan_and_a_quantile_outside_the_unit_interval_are_refused() -> None:
    with pytest.raises(ValueError, match="not a number"):
        Sketch.of([1.0, float("nan")])
    with pytest.raises(ValueError, match="quantile"):
        Sketch.of([1.0]).quantile(1.5)
