"""Times follow their distribution and the seed."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tidegate.base.errors import UsageError
from tidegate.testing import Constant, Empirical, Exponential, Lognormal, Timing
from tidegate.testing.timings import parse_timing

SECONDS = some.floats(1e-6, 100)
TIMINGS = some.one_of(
    SECONDS.map(Constant),
    some.builds(Lognormal, SECONDS, some.floats(0, 2)),
    SECONDS.map(Exponential),
    some.lists(SECONDS, min_size=1, max_size=5).map(lambda values: Empirical(tuple(values))),
)


@given(timing=TIMINGS, seed=some.integers())
def test_never_negative_and_the_same_for_the_same_seed(timing: Timing, seed: int) -> None:
    drawn = [timing.draw(random.Random(seed)) for _ in range(2)]
    assert drawn[0] == drawn[1] >= 0


def draws(timing: Timing, count: int = 4000) -> list[float]:
    source = random.Random(1)
    return [timing.draw(source) for _ in range(count)]


def test_shapes() -> None:
    assert statistics.median(draws(Lognormal(0.2, 0.5))) == pytest.approx(0.2, rel=0.05)
    assert statistics.mean(draws(Exponential(0.05))) == pytest.approx(0.05, rel=0.05)
    assert set(draws(Empirical((0.1, 0.3)))) == {0.1, 0.3}


@pytest.mark.parametrize(
    ("text", "timing"),
    [
        ("20ms", Constant(0.02)),
        ("constant:1s", Constant(1.0)),
        ("lognormal:200ms,0.3", Lognormal(0.2, 0.3)),
        ("lognormal:200ms", Lognormal(0.2)),
        ("exponential:50ms", Exponential(0.05)),
        ("empirical:10ms,90ms", Empirical((0.01, 0.09))),
    ],
)
def test_as_people_write_them(text: str, timing: Timing) -> None:
    assert parse_timing(text) == timing


@pytest.mark.parametrize("text", ["", "fast", "20", "normal:1s", "lognormal:1s,2,3", "empirical:"])
def test_unreadable_timings_say_what_may_be_written(text: str) -> None:
    with pytest.raises(UsageError, match="is not a timing"):
        parse_timing(text)
