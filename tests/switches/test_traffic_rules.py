"""Who is served by which release: by share, and the same one when a candidate grows."""

from __future__ import annotations

import collections

from hypothesis import given
from hypothesis import strategies as st

from tidegate.switches import Weight
from tidegate.switches.traffic_rules import pick, split_of

USERS = [f"user-{number}" for number in range(2000)]


def weights(*shares: int) -> list[Weight]:
    return [Weight(release=f"r{at}", weight=share) for at, share in enumerate(shares)]


@given(st.integers(0, 100), st.integers(0, 100), st.text())
def test_a_candidate_that_grows_keeps_all_that_it_had(a: int, b: int, user: str) -> None:
    less, more = sorted((a, b))
    if pick(split_of(weights(100 - less, less)), user) == "r1":
        assert pick(split_of(weights(100 - more, more)), user) == "r1"


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.text())
def test_two_candidates_take_from_the_stable_one_only(a: int, b: int, more: int, user: str) -> None:
    before = pick(split_of(weights(100 - a - min(b, more), a, min(b, more))), user)
    after = pick(split_of(weights(100 - a - max(b, more), a, max(b, more))), user)
    assert after == before or (before, after) == ("r0", "r2")


@given(st.lists(st.integers(0, 100), min_size=1, max_size=6), st.text())
def test_whoever_it_is_somebody_serves_and_never_at_a_weight_of_nothing(
    shares: list[int], user: str
) -> None:
    served = pick(split_of(weights(*shares)), user)
    assert served == "r0" if not any(shares) else shares[int(served[1:])] > 0


def test_shares_are_as_said() -> None:
    split = split_of(weights(70, 20, 10))
    served = collections.Counter(pick(split, user) for user in USERS)
    for name, share in (("r0", 0.7), ("r1", 0.2), ("r2", 0.1)):
        assert abs(served[name] / len(USERS) - share) < 0.03
