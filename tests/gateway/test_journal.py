"""What happened to a request, in order: attempts end once, and one of them answered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.calls import new_journal
from tidegate.base import Usage
from tidegate.gateway import journal as module
from tidegate.gateway.record.rules import cost
from tidegate.gateway.targets import LEFT, of_status

BUSY = of_status(503, None, None, None)
FIRST, SECOND = Usage(prompt=3, completion=4), Usage(prompt=5, completion=6)


def test_the_answering_attempt_is_last_and_its_usage_is_the_receipt_s() -> None:
    journal = new_journal()
    hedge, other = journal.begin("small"), journal.begin("spare")
    other.answer(SECOND)
    hedge.billed = lambda: FIRST
    hedge.lose(answered=True)
    lost, won = journal.in_order()
    assert [(one.model, one.code) for one in (lost, won)] == [
        ("small", "hedge_lost"),
        ("spare", None),
    ]
    assert (lost.usage, won.usage, journal.usage) == (FIRST, None, SECOND)


def test_an_attempt_ends_once_whichever_way_comes_first() -> None:
    journal = new_journal()
    attempt = journal.begin("small")
    attempt.fail(BUSY)
    attempt.answer(FIRST)
    attempt.break_off("upstream_cut")
    journal.abandon()
    (only,) = journal.attempts
    assert (only.code, only.status) == ("upstream_error", 503)
    assert journal.usage is None
    assert journal.open == []


def test_what_was_never_sent_was_no_attempt() -> None:
    journal = new_journal()
    journal.begin("claude").discard()
    assert not journal.asked
    journal.abandon()
    assert journal.attempts == []


def test_a_refused_answer_is_billed_and_is_not_the_answer() -> None:
    journal = new_journal()
    journal.begin("small").reject("output_invalid", FIRST)
    (only,) = journal.in_order()
    assert (only.code, only.usage, journal.usage) == ("output_invalid", FIRST, None)


def test_who_leaves_ends_all_that_is_open_with_what_is_known() -> None:
    journal = new_journal()
    journal.begin("small")
    begun = journal.begin("spare")
    begun.billed = lambda: SECOND
    journal.abandon()
    assert [(one.model, one.code) for one in journal.attempts] == [
        ("small", LEFT.code),
        ("spare", LEFT.code),
    ]
    assert journal.usage == SECOND, "what had begun to come counts as the answer"
    assert cost(journal.bill(), {}) is None, "nobody knows what the first is billed"


def test_the_times_of_stages_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([2_000_000, 5_000_000, 6_000_000, 9_000_000])
    journal = module.Journal("0" * 32, 0.0, 0)
    monkeypatch.setattr(module, "perf_counter_ns", lambda: next(clock))
    journal.enter("cache")
    journal.enter("limits")
    journal.enter("cache")
    journal.enter(None)
    assert journal.stages == {"admit": 2.0, "cache": 3.0 + 3.0, "limits": 1.0}


@given(st.lists(st.sampled_from(["answer", "fail", "lose", "reject", "discard"]), max_size=8))
def test_no_order_of_endings_loses_or_doubles_a_billed_token(endings: list[str]) -> None:
    journal, billed = new_journal(), 0
    answered = False
    for ending in endings:
        attempt = journal.begin("small")
        attempt.billed = lambda: FIRST
        match ending:
            case "answer" if not answered:
                attempt.answer(FIRST)
                answered = True
            case "reject":
                attempt.reject("output_invalid", FIRST)
            case "lose":
                attempt.lose(answered=True)
            case "discard":
                attempt.discard()
                continue
            case _:
                attempt.fail(BUSY)
                continue
        billed += 1
    told = [one.usage for one in journal.in_order() if one.usage] + [
        *([journal.usage] if journal.usage else [])
    ]
    assert told == [FIRST] * billed


def test_sentences_of_one_stage_follow_each_other() -> None:
    journal = new_journal()
    journal.note("call", "small: tried again after 0.2 s")
    journal.note("call", "spare instead")
    assert journal.reasons == {"call": "small: tried again after 0.2 s; spare instead"}
