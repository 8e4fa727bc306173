"""Who gets a place, who waits, who is told no: for all standings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tidegate.gateway.queue.rules import (
    QueueLoad,
    arrive,
    lowest,
    predicted_wait,
    retry_after,
    smoothed,
    surge,
)

COUNTS = st.tuples(*(st.integers(0, 20),) * 3)
STANDINGS = st.builds(
    QueueLoad,
    concurrent=st.integers(1, 20),
    most=st.integers(0, 40),
    in_use=st.integers(0, 25),
    waiting=COUNTS,
    service=st.floats(0, 30),
)


@given(STANDINGS, st.integers(0, 2), st.floats(0, 60))
def test_every_request_takes_waits_or_is_told_no_for_a_reason(
    standing: QueueLoad, priority: int, patience: float
) -> None:
    verdict = arrive(standing, priority, patience)
    assert verdict.reason
    full = sum(standing.waiting) >= standing.most
    match verdict.kind:
        case "take":
            assert standing.in_use < standing.concurrent
            assert not any(standing.waiting[: priority + 1])
        case "late":
            assert verdict.wait > patience
        case "wait":
            assert not full
            assert verdict.wait <= patience
        case "displace":
            assert full
            assert verdict.shed is not None
            assert verdict.shed > priority
            assert standing.waiting[verdict.shed]
            assert not any(standing.waiting[verdict.shed + 1 :]), "the lowest goes first"
        case "full":
            assert full
            assert not any(standing.waiting[priority + 1 :]), "nobody lower could have gone"
    assert 1 <= int(retry_after(verdict.wait)) <= 60


@given(STANDINGS, st.floats(0, 60))
def test_a_higher_priority_is_never_treated_worse(standing: QueueLoad, patience: float) -> None:
    order = ["full", "late", "displace", "wait", "take"]
    ranks = []
    for priority in (0, 1, 2):
        kind = arrive(standing, priority, patience).kind
        ranks.append({"full": 0, "late": 0}.get(kind, order.index(kind)) > 0)
    assert ranks == sorted(ranks, reverse=True)


@given(st.integers(0, 100), st.floats(0.001, 30), st.integers(1, 50))
def test_the_prediction_grows_with_those_ahead_and_falls_with_places(
    ahead: int, service: float, concurrent: int
) -> None:
    wait = predicted_wait(ahead, service, concurrent)
    assert predicted_wait(ahead + 1, service, concurrent) > wait
    assert predicted_wait(ahead, service, concurrent + 1) < wait


def test_nobody_is_shed_on_a_prediction_that_nobody_can_make() -> None:
    standing = QueueLoad(1, 10, 1, (0, 9, 0), 0.0)
    assert arrive(standing, 1, 0.1).kind == "wait"


@given(COUNTS)
def test_the_lowest_class_that_waits(waiting: tuple[int, int, int]) -> None:
    found = lowest(waiting)
    assert (found is None) == (not any(waiting))
    assert found is None or (waiting[found] and not any(waiting[found + 1 :]))


@given(st.lists(st.floats(0, 3), min_size=1), st.floats(0.01, 1))
def test_a_surge_begins_above_its_threshold_and_ends_well_below_it(
    loads: list[float], above: float
) -> None:
    on = False
    for load in loads:
        before, now = on, surge(on, load, above)
        on = now.on
        assert now.reason
        if load > above:
            assert on
        elif load < above * 0.7:
            assert not on
        elif load <= above and not before:
            assert not on, "between the two it stays as it was"


@given(st.floats(0, 100), st.floats(0, 100))
def test_the_service_time_stays_between_what_was_seen(before: float, seconds: float) -> None:
    low, high = min(before or seconds, seconds), max(before, seconds)
    assert low - 1e-6 <= smoothed(before, seconds) <= high + 1e-6
