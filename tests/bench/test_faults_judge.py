"""Hand-made observations and the word and sentence that each must get."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from bench.faults.judge import WORDS, Call, Observation, Try, judge
from tidegate.testing.scenarios import ANSWER, SCENARIOS

BY_ID = {one.id: one for one in SCENARIOS}
HALF = " ".join(ANSWER.split()[:40])
WHOLE = Call(text=ANSWER, seconds=1.0, model="x-fallback", tokens=60, finish="stop")
PRIMARY = Try(side="primary", at=0.0, size=300, fault="status")
RESCUE = Try(side="fallback", at=0.3, size=300, tokens=60)


def error(words: str = "boom", seconds: float = 1.0, text: str = "") -> Call:
    return Call(ended="error", error=words, seconds=seconds, text=text)


def primary(*times: float, tokens_last: int = 0, size: int = 300) -> tuple[Try, ...]:
    tries = [Try(side="primary", at=at, size=size, fault="status") for at in times]
    if tokens_last:
        tries[-1] = Try(side="primary", at=times[-1], size=size, tokens=tokens_last)
    return tuple(tries)


def told(id_: str, *calls: Call, tries: Any = (PRIMARY, RESCUE), **more: Any) -> tuple[str, str]:
    seen = Observation(
        calls=calls, tries=tuple(tries), answer=ANSWER, fallback="x-fallback", **more
    )
    verdict = judge(BY_ID[id_], seen)
    return verdict.word, verdict.sentence


def test_the_scenarios_are_the_sixteen() -> None:
    assert [one.id for one in SCENARIOS] == [f"S{number:02}" for number in range(1, 17)]
    assert len(ANSWER.split()) == 60
    limits = [20, 40, 20, 40, 20, 130, 60, 40, 70, 30, 30, 20, 20, 40, 30, 40]
    assert [one.limit for one in SCENARIOS] == limits


@pytest.mark.parametrize("id_", [one.id for one in SCENARIOS])
def test_what_always_fails(id_: str) -> None:
    assert told(id_)[0] == "fail"
    assert told(id_, Call(ended="hang"))[0] == "fail"
    word, words = told(id_, Call(text=HALF, finish=None))
    assert (word, words) == ("fail", "40 of 60 words were called success (no finish reason)")
    word, words = told(id_, Call(text=HALF, finish="stop"))
    assert "finish reason stop" in words
    assert told(id_, Call(text=""))[0] == "fail"


def test_an_altered_or_doubled_answer_is_no_success() -> None:
    for text in (ANSWER + " " + ANSWER, HALF + " " + ANSWER, ANSWER.replace("week", "month")):
        word, words = told("S08", Call(text=text, finish="stop"))
        assert word == "fail"
        assert "altered" in words


@pytest.mark.parametrize("id_", [f"S{n:02}" for n in range(1, 17) if n not in (9, 10, 13, 15)])
def test_a_clean_error_is_safe(id_: str) -> None:
    assert told(id_, error(text=HALF), tries=[PRIMARY]) == ("safe", "boom")


def test_s01_waits_as_long_as_it_was_told() -> None:
    assert told("S01", WHOLE, tries=primary(0, 2.1, tokens_last=60))[0] == "pass"
    word, words = told("S01", WHOLE, tries=primary(0, 0.9, tokens_last=60))
    assert (word, words) == (
        "partial",
        "the second try came after 0.90 s, 1.8 s were to be waited",
    )
    assert told("S01", WHOLE)[0] == "partial"  # straight to the fallback
    word, words = told("S01", WHOLE, tries=primary(0, 0.5, 1.0, 3.0, tokens_last=60))
    assert (word, words) == (
        "fail",
        "3 tries at the primary within 1.5 s, at most 2 are right",
    )


@pytest.mark.parametrize(
    ("times", "word"),
    [
        ((0, 1, 2), "pass"),
        ((0, 1, 2, 2.5, 2.9), "fail"),
        ((0, 1, 2, 4, 6, 8), "pass"),
        ((0, 1, 2, 4, 6, 8, 10), "fail"),
    ],
)
def test_s02_bounds_tries_in_a_time_and_in_all(times: tuple[float, ...], word: str) -> None:
    assert told("S02", WHOLE, tries=(*primary(*times), RESCUE))[0] == word
    assert told("S02", error(), tries=primary(*times))[0] == (word if word == "fail" else "safe")


def test_s03_prefers_the_same_provider() -> None:
    assert told("S03", WHOLE, tries=primary(0, 0.4, tokens_last=60))[0] == "pass"
    assert told("S03", WHOLE) == ("partial", "the fallback answered, not the primary")


def test_s04_and_s16_bound_the_tries() -> None:
    for id_ in ("S04", "S16"):
        assert told(id_, WHOLE, tries=(*primary(*range(6)), RESCUE))[0] == "pass"
        assert told(id_, WHOLE, tries=(*primary(*range(7)), RESCUE))[0] == "fail"


def test_s06_leaves_a_silent_route_after_the_first_try() -> None:
    slow = Call(text=ANSWER, seconds=31.0)
    assert told("S06", slow)[0] == "pass"
    assert told("S06", slow, tries=(*primary(0, 30), RESCUE))[0] == "partial"
    assert told("S06", Call(text=ANSWER, seconds=101.0))[0] == "fail"
    assert told("S06", error(seconds=120.0), tries=[PRIMARY])[0] == "fail"


def test_s07_has_a_limit_on_the_first_token() -> None:
    assert told("S07", Call(text=ANSWER, seconds=11.0))[0] == "pass"
    word, words = told("S07", Call(text=ANSWER, seconds=20.4))
    assert (word, words) == ("partial", "it took 20.4 s, at most 15 s are right")


@pytest.mark.parametrize("id_", ["S09", "S10"])
def test_a_healthy_call_afterwards(id_: str) -> None:
    assert told(id_, WHOLE, afterwards=WHOLE)[0] == "pass"
    assert told(id_, error(), tries=[PRIMARY], afterwards=WHOLE)[0] == "safe"
    for bad in (None, error(), Call(text=HALF), Call(ended="hang")):
        word, words = told(id_, WHOLE, afterwards=bad)
        assert word == "fail"
        assert "afterwards" in words


def test_s09_ends_in_time() -> None:
    assert told("S09", error(seconds=46), tries=[PRIMARY], afterwards=WHOLE)[0] == "fail"


def test_s11_does_not_wait_and_tells_usage() -> None:
    assert told("S11", WHOLE)[0] == "pass"
    assert told("S11", Call(text=ANSWER, seconds=9, tokens=60))[0] == "fail"
    assert told("S11", Call(text=ANSWER)) == ("partial", "the answer tells no usage")


def test_s12_bears_one_smaller_try() -> None:
    assert told("S12", WHOLE)[0] == "pass"
    small = Try(side="primary", at=0.1, size=200)
    assert told("S12", WHOLE, tries=[PRIMARY, small, RESCUE])[0] == "pass"
    assert told("S12", WHOLE, tries=[PRIMARY, small, small, RESCUE])[0] == "fail"
    assert told("S12", WHOLE, tries=[*primary(0, 0.1), RESCUE])[0] == "fail"


def test_s13_is_shopped_nowhere_and_says_why() -> None:
    reason = error("Your request was rejected as a result of our safety system.")
    assert told("S13", reason, tries=[PRIMARY])[0] == "pass"
    assert told("S13", error("upstream error"), tries=[PRIMARY])[0] == "fail"
    assert told("S13", reason, tries=primary(0, 0.1))[0] == "fail"
    word, words = told("S13", WHOLE)
    assert (word, words) == (
        "partial",
        "another model answered it; 1 try at the primary, 1 at the fallback",
    )


def test_s14_does_not_blame_the_prefill() -> None:
    assert told("S14", WHOLE)[0] == "pass"
    assert told("S14", error("the stream broke off"), tries=[PRIMARY])[0] == "safe"
    word, words = told("S14", error("This model does not support assistant message prefill."))
    assert word == "fail"
    assert "prefill" in words


def test_s15_comes_back() -> None:
    calls = [WHOLE] * 20
    out = [*primary(0, 4, 20, 40), RESCUE]
    assert told("S15", *calls, tries=[*out, *primary(72, tokens_last=60)])[0] == "pass"
    assert told("S15", *calls, tries=out) == (
        "fail",
        "back at the primary never, within 30 s is right",
    )
    assert told("S15", *calls, tries=[*out, *primary(95, tokens_last=60)])[0] == "fail"
    some_wrong = [*calls[:18], error(), error()]
    assert told("S15", *some_wrong, tries=[*out, *primary(72, tokens_last=60)]) == (
        "safe",
        "2 of 20 calls: boom",
    )
    assert told("S15", *calls[:19], Call(ended="hang"), tries=out)[0] == "fail"


def test_s16_names_who_answered_and_bills_once() -> None:
    assert told("S16", WHOLE)[0] == "pass"
    word, words = told("S16", Call(text=ANSWER, model="x-primary", tokens=60))
    assert (word, words) == ("fail", "the answer names x-primary, x-fallback gave it")
    assert told("S16", Call(text=ANSWER, model="x-fallback", tokens=180))[0] == "fail"
    assert told("S16", Call(text=ANSWER, model="x-fallback"))[0] == "partial"


@given(
    id_=some.sampled_from(sorted(BY_ID)),
    ended=some.sampled_from(["success", "error", "hang"]),
    text=some.one_of(some.just(ANSWER), some.just(HALF), some.text()),
    seconds=some.floats(0, 200),
    times=some.lists(some.floats(0, 100), max_size=9),
    after=some.booleans(),
)
def test_no_observation_is_judged_too_kindly(
    id_: str, ended: Any, text: str, seconds: float, times: list[float], after: bool
) -> None:
    call = Call(ended=ended, text=text, seconds=seconds, error="" if ended == "success" else "e")
    seen = Observation(
        calls=(call,),
        tries=primary(*sorted(times)),
        afterwards=WHOLE if after else None,
        answer=ANSWER,
        fallback="x-fallback",
    )
    verdict = judge(BY_ID[id_], seen)
    assert verdict.word in WORDS
    assert verdict.sentence
    if ended == "hang" or (ended == "success" and text != ANSWER):
        assert verdict.word == "fail"
    if ended == "error":
        assert verdict.word in (("pass", "fail") if id_ == "S13" else ("safe", "fail"))
