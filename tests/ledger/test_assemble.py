"""Self times of stages add up to the journey, whatever the spans look like."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ledger.samples import make_receipt
from tidegate.base.money import Usage
from tidegate.ledger.assemble import MORE, MOST_STAGES, Journey, assemble
from tidegate.ledger.spans import Span

T0 = 1_790_000_000_000_000_000
TRACE = "0af7651916cd43dd8448eb211c80319c"


def make_span(name: str, start: float, end: float, **changes: Any) -> Span:
    """A span from ``start`` to ``end`` milliseconds; its id is its name's."""
    fields: dict[str, Any] = {
        "trace": TRACE,
        "span": name,
        "parent": "root",
        "name": name,
        "service": "app",
        "start_ns": T0 + int(start * 1e6),
        "end_ns": T0 + int(end * 1e6),
    }
    return Span(**{**fields, **changes})


def root(end: float = 1000.0, **changes: Any) -> Span:
    return make_span("root", 0, end, **{"parent": None, "journey": "get-plan", **changes})


def stage(name: str, start: float, end: float, **changes: Any) -> Span:
    return make_span(name, start, end, **{"stage": name, **changes})


def only(*spans: Span, receipts: tuple[Any, ...] = ()) -> Journey:
    (journey,) = assemble(spans, receipts)
    return journey


def test_stages_one_after_the_other_and_the_rest_is_other() -> None:
    journey = only(root(), stage("prompt", 0, 100), stage("model", 100, 900))
    assert journey.stages == {"prompt": 100, "model": 800}
    assert journey.other == 100
    assert journey.total == 1000


def test_the_time_of_a_child_stage_is_taken_from_its_parent() -> None:
    journey = only(root(), stage("model", 100, 900), stage("tools", 300, 500, parent="model"))
    assert journey.stages == {"model": 600, "tools": 200}


def test_parallel_stages_count_once_for_the_one_that_ends_last() -> None:
    journey = only(root(), stage("retrieval", 0, 400), stage("database", 100, 700))
    assert journey.stages == {"retrieval": 100, "database": 600}
    assert journey.other == 300


def test_spans_without_a_stage_are_transparent() -> None:
    journey = only(
        root(),
        make_span("http", 100, 900),
        stage("model", 200, 800, parent="http"),
        make_span("client", 250, 700, parent="model"),
        stage("tools", 300, 400, parent="client"),
    )
    assert journey.stages == {"model": 500, "tools": 100}
    assert journey.other == 400


def test_the_gateway_lies_inside_the_stage_that_sent_the_request() -> None:
    receipt = make_receipt(
        trace=TRACE,
        parent="client",
        stages={"admit": 1.0, "call": 300.0},
        first_token=50.0,
        usage=Usage(prompt=7, completion=3),
        cost=0.25,
        cache="hit",
    )
    unknown = make_receipt(trace=TRACE, parent="nobody", stages={"admit": 1.0}, cost=None)
    journey = only(
        root(),
        stage("model", 200, 800),
        make_span("client", 210, 790, parent="model"),
        receipts=(receipt, unknown, receipt),
    )
    assert journey.pieces == {"model": {"admit": 1.0, "call": 300.0}, "other": {"admit": 1.0}}
    assert journey.first_token == pytest.approx(260)
    assert (journey.prompt_tokens, journey.completion_tokens) == (47, 23)
    assert (journey.cost, journey.cost_unknown, journey.requests) == (0.25, 1, 2)
    assert (journey.cache_hits, journey.cache_asked) == (1, 2)


def test_parallel_requests_are_never_longer_than_the_stage_that_sent_them() -> None:
    sent = [make_receipt(trace=TRACE, parent="model", stages={"call": 90.0}) for _ in range(4)]
    journey = only(root(), stage("model", 0, 100), receipts=tuple(sent))
    assert journey.pieces["model"]["call"] == pytest.approx(100)


def test_a_span_of_another_process_with_a_skewed_clock_is_moved_into_its_caller() -> None:
    journey = only(
        root(),
        stage("tools", 100, 500),
        stage("search", 9100, 9300, parent="tools", service="search"),
        stage("database", 9150, 9200, parent="search", service="search"),
    )
    assert journey.stages == pytest.approx({"tools": 200, "search": 150, "database": 50})


def test_a_missing_parent_a_cycle_and_a_duplicate_are_borne() -> None:
    journey = only(
        root(),
        root(),
        stage("model", 100, 200, parent="lost"),
        stage("a", 300, 400, parent="b"),
        stage("b", 300, 400, parent="a"),
        stage("model", 100, 200, parent="lost"),
    )
    assert journey.stages["model"] == 100
    assert sum(journey.stages.values()) + journey.other == journey.total


def test_two_journeys_in_one_trace_are_told_apart_and_a_nested_one_belongs_to_the_outer() -> None:
    first, second = assemble(
        [
            make_span("request", 0, 3000, parent=None),
            root(parent="request"),
            make_span("inner", 10, 20, journey="inner"),
            make_span("second", 2000, 2500, journey="ask-coach", parent="request"),
            stage("model", 2100, 2300, parent="second"),
        ],
        [make_receipt(trace=TRACE, parent="model", stages={"call": 5.0})],
    )
    assert (first.journey, first.total, first.stages) == ("get-plan", 1000, {})
    assert (second.journey, second.stages, second.requests) == ("ask-coach", {"model": 200}, 1)


def test_without_a_journey_span_there_is_no_journey() -> None:
    assert assemble([stage("model", 0, 1)], []) == []


def test_names_in_any_script_are_kept_and_many_names_are_bounded() -> None:
    spans = [stage(f"этап {n}", n * 10, n * 10 + 9 - n / 100) for n in range(60)]
    journey = only(root(journey="план\t训练"), *spans)
    assert journey.journey == "план 训练"
    assert len(journey.stages) == MOST_STAGES + 1
    assert journey.stages[MORE] > 0
    assert sum(journey.stages.values()) + journey.other == pytest.approx(journey.total)


def test_a_stage_called_other_and_a_journey_that_ends_before_it_begins() -> None:
    journey = only(root(), stage("other", 0, 400), stage("model", 500, 600))
    assert (journey.stages, journey.other) == ({"model": 100}, 900)
    backwards = only(root(end=-5), stage("model", 1, 2))
    assert (backwards.total, backwards.other) == (0, 0)


NAMES = ["root", *"abcdefgh"]
some_spans = st.lists(
    st.builds(
        lambda name, parent, start, length, staged, service: make_span(
            name,
            start,
            start + length,
            parent=parent,
            stage=f"s{ord(name[0]) % 5}" if staged else None,
            service=service,
        ),
        st.sampled_from(NAMES[1:]),
        st.sampled_from([*NAMES, "lost", None]),
        st.integers(-500, 1500),
        st.integers(0, 1500),
        st.booleans(),
        st.sampled_from(["app", "search"]),
    ),
    max_size=14,
)
some_receipts = st.lists(
    st.builds(
        lambda parent, call: make_receipt(parent=parent, stages={"admit": 1.0, "call": call}),
        st.sampled_from([*NAMES, "lost", None]),
        st.floats(0, 3000),
    ),
    max_size=4,
)


@settings(max_examples=200)
@given(some_spans, some_receipts)
def test_self_times_add_up_to_the_total_and_none_is_negative(
    spans: list[Span], receipts: list[Any]
) -> None:
    journey = only(root(), *spans, receipts=tuple(receipts))
    assert sum(journey.stages.values()) + journey.other == pytest.approx(journey.total)
    assert all(ms >= 0 for ms in (*journey.stages.values(), journey.other))
    for within, pieces in journey.pieces.items():
        limit = journey.other if within == "other" else journey.stages.get(within, 0.0)
        assert sum(pieces.values()) <= limit + 1e-6
        assert all(ms >= 0 for ms in pieces.values())
    assert journey.requests == len(receipts)


@given(some_spans)
def test_the_order_of_arrival_does_not_matter(spans: list[Span]) -> None:
    unique = list({span.span: span for span in spans}.values())
    assert only(root(), *unique) == only(*reversed(unique), root())


def test_thousands_of_parallel_stages_take_no_minutes() -> None:
    spans = [stage(f"s{n}", n % 900, n % 900 + 50) for n in range(5000)]
    journey = only(root(), *spans)
    assert sum(journey.stages.values()) + journey.other == pytest.approx(journey.total)
    assert journey.spans == 5001


def test_a_chain_as_deep_as_a_request_may_be_is_walked() -> None:
    spans = [stage(f"s{n}", 0, 900, parent="root" if n == 0 else f"s{n - 1}") for n in range(5000)]
    assert sum(only(root(), *spans).stages.values()) == pytest.approx(900)
