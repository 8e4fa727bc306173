"""From what was seen to one word and its sentence; no clock, no socket, nothing else.

``pass``     the whole answer (S13: a clean error) and every check
``partial``  rescued, but an advisory check failed (S13: somebody else answered)
``safe``     a clean error in time
``fail``     a hang, an answer that is not whole called success, or a required check that failed
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from tidegate.testing import scenarios as wishes
from tidegate.testing.scenarios import Scenario, ScenarioCheck, Side

Word = Literal["pass", "partial", "safe", "fail"]
WORDS: tuple[Word, ...] = ("pass", "partial", "safe", "fail")


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call as its client saw it. Seconds count from the scenario's start."""

    started: float = 0.0
    seconds: float = 0.0
    ended: Literal["success", "error", "hang"] = "success"
    """``success``: the client was given the end of an answer and no error."""
    text: str = ""
    error: str = ""
    model: str = ""
    """What the answer's body and the headers with "model" in their name say."""
    tokens: int | None = None
    """Completion tokens of the usage."""
    finish: str | None = None


@dataclass(frozen=True, kw_only=True)
class Try:
    """One request as a fault server saw it."""

    side: Side
    at: float
    size: int
    """Bytes of its body."""
    fault: str | None = None
    tokens: int = 0
    """Tokens that were sent in answer."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """Everything that was seen of one scenario; ``tries`` are in order of arrival and without
    those of the call afterwards."""

    calls: tuple[Call, ...]
    tries: tuple[Try, ...] = ()
    afterwards: Call | None = None
    answer: str
    """The text that is a whole answer."""
    fallback: str
    """Name of the fallback's model."""

    @property
    def primary(self) -> tuple[Try, ...]:
        return tuple(seen for seen in self.tries if seen.side == "primary")

    @property
    def answered(self) -> bool:
        return all(call.ended == "success" for call in self.calls)


@dataclass(frozen=True)
class Verdict:
    word: Word
    sentence: str
    seconds: float
    """The longest call."""


def judge(scenario: Scenario, seen: Observation) -> Verdict:
    word, sentence = _decide(scenario, seen)
    return Verdict(word, sentence, max((call.seconds for call in seen.calls), default=0.0))


def _decide(scenario: Scenario, seen: Observation) -> tuple[Word, str]:
    if not seen.calls:
        return "fail", "no call was made"
    for call in seen.calls:
        if call.ended == "hang":
            return "fail", f"no end within {scenario.limit:g} s"
        if call.ended == "success" and call.text != seen.answer:
            return "fail", _not_whole(call, seen)
    failed = [(check, why) for check in scenario.checks if (why := broken(check, scenario, seen))]
    for check, why in failed:
        if not check.advisory:
            return "fail", why
    if scenario.wants == "error":
        if seen.answered:
            return "partial", f"another model answered it; {_tries(seen)}"
    elif not seen.answered:
        return "safe", _errors(seen)
    if failed:
        return "partial", failed[0][1]
    return "pass", f"{_ending(scenario, seen)}; {_tries(seen)}"


def _not_whole(call: Call, seen: Observation) -> str:
    got, whole = len(call.text.split()), len(seen.answer.split())
    finish = f"finish reason {call.finish}" if call.finish else "no finish reason"
    if call.text and seen.answer.startswith(call.text):
        return f"{got} of {whole} words were called success ({finish})"
    return f"an altered answer of {got} words was called success ({finish})"


def _errors(seen: Observation) -> str:
    wrong = [call for call in seen.calls if call.ended == "error"]
    count = f"{len(wrong)} of {len(seen.calls)} calls: " if len(seen.calls) > 1 else ""
    return f"{count}{wrong[0].error}"


def _ending(scenario: Scenario, seen: Observation) -> str:
    if scenario.wants == "error":
        return seen.calls[0].error
    return "the whole answer" if len(seen.calls) == 1 else f"{len(seen.calls)} whole answers"


def _tries(seen: Observation) -> str:
    primary = len(seen.primary)
    words = f"{primary} tr{'y' if primary == 1 else 'ies'} at the primary"
    other = len(seen.tries) - primary
    return f"{words}, {other} at the fallback" if other else words


def broken(check: ScenarioCheck, scenario: Scenario, seen: Observation) -> str | None:
    """Why ``check`` does not hold, or None."""
    return _BROKEN[type(check)](check, scenario, seen)


def _most_tries(check: wishes.MostTries, scenario: Scenario, seen: Observation) -> str | None:
    tries = seen.primary
    if tries and check.within is not None:
        tries = tuple(t for t in tries if t.at - tries[0].at <= check.within)
    smaller = sum(1 for t in tries[1:] if t.size < tries[0].size)
    counted = len(tries) - min(smaller, check.smaller)
    if counted <= check.most:
        return None
    span = f" within {check.within:g} s" if check.within is not None else ""
    return f"{len(tries)} tries at the primary{span}, at most {check.most} are right"


def _second_try(check: wishes.SecondTryAfter, scenario: Scenario, seen: Observation) -> str | None:
    if not seen.answered:
        return None
    if len(seen.tries) < 2 or seen.tries[1].side != "primary":
        return "the second try did not go to the primary"
    waited = seen.tries[1].at - seen.tries[0].at
    if waited >= check.seconds:
        return None
    return f"the second try came after {waited:.2f} s, {check.seconds:g} s were to be waited"


def _answered_by(check: wishes.AnsweredBy, scenario: Scenario, seen: Observation) -> str | None:
    if not seen.answered:
        return None
    told = [t for t in seen.tries if t.tokens]
    if told and told[-1].side == check.side:
        return None
    return f"the {told[-1].side if told else 'nobody'} answered, not the {check.side}"


def _ends_within(check: wishes.EndsWithin, scenario: Scenario, seen: Observation) -> str | None:
    longest = max(call.seconds for call in seen.calls)
    if longest <= check.seconds:
        return None
    return f"it took {longest:.1f} s, at most {check.seconds:g} s are right"


def _healthy(check: wishes.HealthyAfterwards, scenario: Scenario, seen: Observation) -> str | None:
    call = seen.afterwards
    if call is not None and call.ended == "success" and call.text == seen.answer:
        return None
    how = "was not made" if call is None else f"ended with {call.ended} {call.error}".rstrip()
    return f"the healthy call afterwards {how}"


def _usage(check: wishes.ReportsUsage, scenario: Scenario, seen: Observation) -> str | None:
    missing = seen.answered and any(call.tokens is None for call in seen.calls)
    return "the answer tells no usage" if missing else None


def _one_answer(check: wishes.BillsOneAnswer, scenario: Scenario, seen: Observation) -> str | None:
    whole = len(seen.answer.split())
    told = [call.tokens for call in seen.calls if call.tokens is not None]
    wrong = [tokens for tokens in told if tokens != whole]
    return f"{wrong[0]} tokens are billed for an answer of {whole}" if wrong else None


def _names(check: wishes.NamesFallback, scenario: Scenario, seen: Observation) -> str | None:
    for call in seen.calls:
        if call.ended == "success" and seen.fallback not in call.model:
            return f"the answer names {call.model or 'no model'}, {seen.fallback} gave it"
    return None


def _tells(check: wishes.TellsReason, scenario: Scenario, seen: Observation) -> str | None:
    for call in seen.calls:
        if call.ended == "error" and check.words not in call.error:
            return f"the provider's reason is not told: {call.error}"
    return None


def _hides(check: wishes.HidesReason, scenario: Scenario, seen: Observation) -> str | None:
    for call in seen.calls:
        if check.words in call.error:
            return f"the error speaks of {check.words}, which is not what failed: {call.error}"
    return None


def _recovers(check: wishes.Recovers, scenario: Scenario, seen: Observation) -> str | None:
    well = scenario.outage or 0.0
    back = [t.at for t in seen.primary if t.at >= well and t.tokens]
    if back and back[0] <= well + check.seconds:
        return None
    when = f"after {back[0] - well:.0f} s" if back else "never"
    return f"back at the primary {when}, within {check.seconds:g} s is right"


_BROKEN: dict[type, Callable[[Any, Scenario, Observation], str | None]] = {
    wishes.MostTries: _most_tries,
    wishes.SecondTryAfter: _second_try,
    wishes.AnsweredBy: _answered_by,
    wishes.EndsWithin: _ends_within,
    wishes.HealthyAfterwards: _healthy,
    wishes.ReportsUsage: _usage,
    wishes.BillsOneAnswer: _one_answer,
    wishes.NamesFallback: _names,
    wishes.TellsReason: _tells,
    wishes.HidesReason: _hides,
    wishes.Recovers: _recovers,
}
