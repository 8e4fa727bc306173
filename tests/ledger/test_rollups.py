"""A roll-up of all is the sum of roll-ups of parts, stored or not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ledger.samples import RELEASE, make_receipt
from tidegate.base.money import Usage
from tidegate.ledger.receipts import Attempt, Receipt
from tidegate.ledger.rollups import (
    MANY,
    MOST_KEYS,
    Rollup,
    cost_is_unknown,
    receipt_rollups,
)

some_receipts = st.lists(
    st.builds(
        lambda call, cost, cache, outcome, first, stage: make_receipt(
            at=1000.0,
            stages={"admit": 0.5, stage: call},
            total=call + 1,
            cost=cost,
            cache=cache,
            outcome=outcome,
            first_token=first,
        ),
        st.floats(0, 1e5),
        st.one_of(st.none(), st.floats(0, 1)),
        st.sampled_from(["miss", "hit", "off", "shared"]),
        st.sampled_from(["served", "failed", "client_gone"]),
        st.one_of(st.none(), st.floats(0, 1e4)),
        st.sampled_from(["call", "guard"]),
    ),
    min_size=1,
    max_size=20,
)


def of(receipts: list[Receipt]) -> Rollup:
    (rollup,) = receipt_rollups(receipts).values()
    return rollup


@given(some_receipts, some_receipts)
def test_the_parts_add_up_to_the_whole(first: list[Receipt], second: list[Receipt]) -> None:
    whole = of(first + second)
    for merged in (
        of(first) + of(second),
        Rollup.merged_from([of(second).encode(), of(first).encode()]),
    ):
        assert merged.tallies == pytest.approx(whole.tallies)
        assert merged.sketches == whole.sketches
        assert merged.shelves.total == pytest.approx(whole.shelves.total)
        assert merged.count == len(first) + len(second)


def test_keys_are_minute_release_route_variant_and_purpose_and_journeys_stand_apart() -> None:
    made = receipt_rollups(
        [
            make_receipt(at=59.9),
            make_receipt(at=60.0),
            make_receipt(at=60.0, route=None),
            make_receipt(at=60.0, journey="get-plan"),
            make_receipt(at=60.0, release="sha256:2"),
            make_receipt(at=60.0, variant="b"),
            make_receipt(at=60.0, purpose="eval"),
            make_receipt(at=61.0),
        ]
    )
    routes = {key: one.count for key, one in made.items() if key.scope == "route"}
    assert sorted(routes.values()) == [1, 1, 1, 1, 1, 3]
    (journey,) = (key for key in made if key.scope == "journey_route")
    assert (journey.route, journey.journey, made[journey].count) == ("recommend", "get-plan", 1)


def test_a_canary_stays_under_its_digest_however_many_names_there_are() -> None:
    """30 routes, 10 journeys, a canary of 5%: 300 receipts of one minute."""
    canary = "sha256:" + "cd" * 32
    receipts = [
        make_receipt(
            at=1.0, route=f"r{n % 30}", journey=f"j{n % 10}",
            release=canary if n % 20 == 0 else RELEASE,
        )
        for n in range(300)
    ]  # fmt: skip
    made = receipt_rollups(receipts)
    for release, count in ((canary, 15), (RELEASE, 285)):
        keys = [key for key in made if key.release == release and key.scope == "route"]
        assert sum(made[key].count for key in keys) == count
        assert MANY not in {key.route for key in keys}
    assert {key.release for key in made} == {canary, RELEASE}


def test_made_up_routes_are_folded_within_their_release_only() -> None:
    receipts = [make_receipt(at=1.0, route=f"r{n}") for n in range(MOST_KEYS + 50)]
    receipts += [make_receipt(at=1.0, release="sha256:2", purpose="shadow")] * 2
    made = receipt_rollups(receipts)
    assert {key.release for key in made if key.route == MANY} == {RELEASE}
    (shadow,) = (one for key, one in made.items() if key.release == "sha256:2")
    assert shadow.count == 2


def test_what_a_client_named_before_its_route_was_known_makes_no_roll_up() -> None:
    made = receipt_rollups(
        make_receipt(at=1.0, route=None, release=None, journey=f"x{n}") for n in range(50)
    )
    assert len(made) == 1


def test_the_rarest_names_are_folded_and_nothing_is_lost() -> None:
    receipts = [
        make_receipt(at=1.0, route=f"r{n}") for n in range(MOST_KEYS * 2) for _ in range(1 + n % 2)
    ]
    made = receipt_rollups(receipts)
    assert len(made) == MOST_KEYS + 1
    assert sum(r.count for r in made.values()) == len(receipts)
    assert {r.count for key, r in made.items() if key.route != MANY} == {2}


def test_cost_is_unknown_only_where_money_may_have_been_spent() -> None:
    assert cost_is_unknown(make_receipt(cost=None))
    assert not cost_is_unknown(make_receipt(cost=0.0))
    assert not cost_is_unknown(make_receipt(cost=None, outcome="refused", attempts=()))
    assert cost_is_unknown(make_receipt(cost=None, outcome="failed"))


def test_tokens_are_those_of_the_provider_and_estimates_are_counted() -> None:
    tallies = of(
        [
            make_receipt(at=1.0, usage=Usage(prompt=5, completion=2, estimated=True)),
            make_receipt(at=1.0, usage=None, replayed=Usage(prompt=50, completion=20), cache="hit"),
            make_receipt(
                at=1.0,
                usage=Usage(prompt=7, completion=3),
                attempts=(
                    Attempt(
                        model="a", ms=1.0, code="upstream_cut", usage=Usage(prompt=7, completion=9)
                    ),
                    Attempt(model="b", ms=1.0, status=200),
                ),
            ),
        ]
    ).tallies
    assert (tallies["tokens.prompt"], tallies["tokens.completion"]) == (19, 14)
    assert (tallies["tokens.replayed"], tallies["usage.estimated"]) == (70, 1)


def test_what_answered_and_each_failed_try_are_counted_by_a_bounded_set_of_words() -> None:
    tries = (
        Attempt(model="small", ms=1.0, code="upstream_idle_timeout"),
        Attempt(model="small", ms=1.0, status=400, code="whatever_a_provider_says"),
        Attempt(model="spare", ms=1.0, status=200),
    )
    tallies = of([make_receipt(at=1.0, attempts=tries, served_by="fallback")]).tallies
    assert tallies["served.fallback"] == 1
    assert {name: n for name, n in tallies.items() if name.startswith("failed_attempt.")} == {
        "failed_attempt.upstream_idle_timeout": 1,
        "failed_attempt.other": 1,
    }


def test_foreign_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="not a roll-up"):
        Rollup.merged_from([b"garbage"])
