"""Sixteen upstream faults that every gateway must live through, as frozen values.

Ids and required behaviour follow failoverbench's methodology v0.1 (results CC BY 4.0); the faults
are played by our own ``ModelServer``. Who judges a system by them needs, for each scenario, two
servers that say ``ANSWER``: a primary and a fallback.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from tidegate.testing.faults import (
    Cut,
    Fault,
    Hang,
    InvalidEvent,
    MissingDone,
    Refuse,
    Reset,
    SlowFirstToken,
    Stall,
)
from tidegate.testing.script import Script, Step, has_prefill

ANSWER = (
    "Warm up for five minutes before you start and keep the first week easy. "
    "Walk fast on two days, run slowly on one, and rest on the days between. "
    "Drink water, sleep enough, and stop at once when a knee or the chest hurts. "
    "See a doctor. After four weeks add one short hill and write down how it felt."
)
"""Sixty words; a whole answer is exactly this text."""

Side = Literal["primary", "fallback"]


class MostTries(msgspec.Struct, frozen=True, kw_only=True):
    """At most ``most`` tries reach the primary, in all or in the first ``within`` seconds; beyond
    them ``smaller`` tries with a strictly smaller body are borne."""

    most: int
    within: float | None = None
    smaller: int = 0
    advisory: bool = False


class SecondTryAfter(msgspec.Struct, frozen=True, kw_only=True):
    """The second try goes to the primary too, at least ``seconds`` after the first."""

    seconds: float
    advisory: bool = False


class AnsweredBy(msgspec.Struct, frozen=True, kw_only=True):
    """This side gave the answer."""

    side: Side
    advisory: bool = False


class EndsWithin(msgspec.Struct, frozen=True, kw_only=True):
    """Every call ends within ``seconds``."""

    seconds: float
    advisory: bool = False


class HealthyAfterwards(msgspec.Struct, frozen=True, kw_only=True):
    """A call right after the fault is gone gets the whole answer."""

    advisory: bool = False


class ReportsUsage(msgspec.Struct, frozen=True, kw_only=True):
    """The answer says how many tokens it used."""

    advisory: bool = False


class BillsOneAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Usage, where it is told, counts the answer once: failed tries are not billed."""

    advisory: bool = False


class NamesFallback(msgspec.Struct, frozen=True, kw_only=True):
    """An answer of the fallback names the fallback's model, in its body or in a header."""

    advisory: bool = False


class TellsReason(msgspec.Struct, frozen=True, kw_only=True):
    """An error passes on the provider's reason."""

    words: str
    advisory: bool = False


class HidesReason(msgspec.Struct, frozen=True, kw_only=True):
    """An error does not speak of this, which is not what went wrong."""

    words: str
    advisory: bool = False


class Recovers(msgspec.Struct, frozen=True, kw_only=True):
    """The primary answers again within ``seconds`` of the end of its outage."""

    seconds: float
    advisory: bool = False


ScenarioCheck = (
    MostTries
    | SecondTryAfter
    | AnsweredBy
    | EndsWithin
    | HealthyAfterwards
    | ReportsUsage
    | BillsOneAnswer
    | NamesFallback
    | TellsReason
    | HidesReason
    | Recovers
)
"""What must hold beside the answer itself; where ``advisory`` is set, only for a full pass."""


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One fault, how it is asked, and what must hold."""

    id: str
    title: str
    primary: Script
    fallback: Script = Script()
    limit: float
    """Seconds after which a call counts as a hang."""
    checks: tuple[ScenarioCheck, ...] = ()
    wants: Literal["answer", "error"] = "answer"
    """What is right: the whole answer, or a clean error with the provider's reason."""
    calls: int = 1
    every: float = 0.0
    """Seconds from one call to the next, when there are several."""
    outage: float | None = None
    """Seconds after which the primary is well again."""
    streamed_only: bool = False
    """The fault shows itself in streams alone."""

    @property
    def afterwards(self) -> bool:
        """Whether one more call is made, once the fault is gone."""
        return any(isinstance(check, HealthyAfterwards) for check in self.checks)


def _always(fault: Fault) -> Script:
    return Script.of(fault)


def _once(fault: Fault) -> Script:
    return Script.of(Step(fault=fault, first=1))


def scenarios(scale: float = 1.0) -> tuple[Scenario, ...]:
    """S01 to S16. With ``scale`` below 1 waits and limits shrink: for tests whose gateway has
    shorter timeouts too. Bounds on tries in a time and on recovery stay, because a gateway's
    back-off and its breaker's pause do."""
    form: Literal["seconds", "milliseconds"] = "seconds" if scale == 1 else "milliseconds"
    return (
        Scenario(
            id="S01",
            title="429 with Retry-After once",
            primary=_once(Refuse(retry_after=2 * scale, retry_form=form)),
            limit=20,
            checks=(
                MostTries(most=2, within=1.5 * scale),
                SecondTryAfter(seconds=1.8 * scale, advisory=True),
            ),
        ),
        Scenario(
            id="S02",
            title="429 every time, no Retry-After",
            primary=_always(Refuse()),
            limit=40,
            checks=(MostTries(most=4, within=3), MostTries(most=6)),
        ),
        Scenario(
            id="S03",
            title="500 once",
            primary=_once(Refuse(status=500)),
            limit=20,
            checks=(AnsweredBy(side="primary", advisory=True),),
        ),
        Scenario(
            id="S04",
            title="503 every time",
            primary=_always(Refuse(status=503)),
            limit=40,
            checks=(MostTries(most=6),),
        ),
        Scenario(id="S05", title="reset before headers, once", primary=_once(Reset()), limit=20),
        Scenario(
            id="S06",
            title="no byte for two minutes",
            primary=_always(Hang(120 * scale)),
            limit=130 * scale,
            checks=(EndsWithin(seconds=100 * scale), MostTries(most=1, advisory=True)),
        ),
        Scenario(
            id="S07",
            title="headers at once, first token late",
            primary=_always(SlowFirstToken(20 * scale)),
            limit=60 * scale,
            checks=(EndsWithin(seconds=15 * scale, advisory=True),),
            streamed_only=True,
        ),
        Scenario(
            id="S08",
            title="stream dies after 40 of 60 tokens",
            primary=_always(Cut(40)),
            limit=40,
            streamed_only=True,
        ),
        Scenario(
            id="S09",
            title="stream goes silent after 20 tokens",
            primary=_always(Stall(20, 30 * scale)),
            limit=70 * scale,
            checks=(EndsWithin(seconds=45 * scale), HealthyAfterwards()),
            streamed_only=True,
        ),
        Scenario(
            id="S10",
            title="the tenth event is not JSON",
            primary=_always(InvalidEvent(8)),
            limit=30,
            checks=(HealthyAfterwards(),),
            streamed_only=True,
        ),
        Scenario(
            id="S11",
            title="whole stream without [DONE]",
            primary=_always(MissingDone()),
            limit=30,
            checks=(EndsWithin(seconds=8), ReportsUsage(advisory=True)),
            streamed_only=True,
        ),
        Scenario(
            id="S12",
            title="400 context length every time",
            primary=_always(Refuse.context_length()),
            limit=20,
            checks=(MostTries(most=1, smaller=1),),
        ),
        Scenario(
            id="S13",
            title="400 content policy every time",
            primary=_always(Refuse.content_policy()),
            limit=20,
            checks=(MostTries(most=1), TellsReason(words="safety system")),
            wants="error",
        ),
        Scenario(
            id="S14",
            title="cut, and the fallback refuses a prefill",
            primary=_always(Cut(40)),
            fallback=Script.of(Step(fault=Refuse.prefill(), when=has_prefill)),
            limit=40,
            checks=(HidesReason(words="prefill"),),
            streamed_only=True,
        ),
        Scenario(
            id="S15",
            title="503 for a minute, then well",
            primary=Script.of(Step(fault=Refuse(status=503), until_seconds=60 * scale)),
            limit=30,
            checks=(Recovers(seconds=30),),
            calls=20,
            every=4 * scale,
            outage=60 * scale,
        ),
        Scenario(
            id="S16",
            title="503 every time, who answered?",
            primary=_always(Refuse(status=503)),
            limit=40,
            checks=(
                NamesFallback(),
                BillsOneAnswer(),
                MostTries(most=6),
                ReportsUsage(advisory=True),
            ),
        ),
    )


SCENARIOS = scenarios()
