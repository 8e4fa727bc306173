"""The journal of one request: what happened to it, in order; ``finish`` makes a receipt of it.

It only grows. The path writes to it; no stage reads it back to decide anything.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns

from tidegate.base import Usage
from tidegate.gateway.targets import HEDGE_LOST, LEFT, Failure
from tidegate.gateway.values import (
    NO_CONTEXT,
    NOBODY,
    Caller,
    Grant,
    Request,
    Steering,
    TraceContext,
)
from tidegate.ledger import Attempt, CacheResult, Purpose, ServedBy


class OpenAttempt:
    """One try at one model that is under way. It ends once, whichever way comes first."""

    __slots__ = ("_journal", "_started", "_waited", "billed", "ended", "key", "model")

    def __init__(self, journal: Journal, model: str, waited: float, started: int) -> None:
        self._journal = journal
        self._started = started
        self._waited = waited
        self.model = model
        self.key: str | None = None
        """Fingerprint of the provider's key in use."""
        self.billed: Callable[[], Usage] | None = None
        """What the provider bills for it so far; None until the model has begun to answer."""
        self.ended: Attempt | None = None

    def answer(self, usage: Usage | None, skipped: int = 0) -> None:
        """End the attempt as the one whose answer the client gets."""
        ended = self._end(None, 200, None, skipped)
        if ended is not None:
            self._journal.answering, self._journal.usage = ended, usage

    def fail(self, failure: Failure) -> None:
        self._end(failure.code, failure.upstream_status, failure.usage)

    def break_off(self, code: str, skipped: int = 0) -> None:
        """It ended in the middle of an answer that the client was getting."""
        ended = self._end(code, 200, None, skipped)
        if ended is not None:
            self._journal.answering = ended
            self._journal.usage = self.billed() if self.billed else None

    def reject(self, code: str, usage: Usage | None) -> None:
        """End the attempt as failed although it answered: the answer is not given, and billed all
        the same."""
        self._end(code, 200, usage)

    def lose(self, answered: bool) -> None:
        """End the attempt as the loser of a hedge; ``answered``: it had answered, too."""
        self._end(HEDGE_LOST, 200 if answered else None, self.billed() if self.billed else None)

    def discard(self) -> None:
        """Drop an attempt that sent nothing."""
        if self in self._journal.open:
            self._journal.open.remove(self)

    def _end(
        self, code: str | None, status: int | None, usage: Usage | None, skipped: int = 0
    ) -> Attempt | None:
        """The attempt, put on the journal; None when it had ended before."""
        if self not in self._journal.open:
            return None
        self._journal.open.remove(self)
        self.ended = Attempt(
            model=self.model,
            ms=ms_since(self._started),
            status=status,
            code=code,
            usage=usage,
            key=self.key,
            waited=self._waited,
            skipped=skipped,
        )
        self._journal.attempts.append(self.ended)
        return self.ended


class Journal:
    """``attempts`` are in the order in which they ended; ``answering`` is the one whose answer, or
    part of one, the client got. ``stages`` holds milliseconds."""

    # Defaults stand on the class: a request sets a few of them, and all are paid by each otherwise.

    # What became known of the request, and when it was refused nothing more.
    context: TraceContext = NO_CONTEXT
    caller: Caller = NOBODY
    body = b""
    steering: Steering | None = None
    request: Request | None = None
    # What was done about it.
    grant: Grant | None = None
    cache: CacheResult = "off"
    queued: float | None = None
    """Milliseconds in the queue of its route; None where there is none."""
    capped: str | None = None
    """What made the length limit tighter than the release says."""
    answering: Attempt | None = None
    usage: Usage | None = None
    """Billed for the answer; what failed attempts are billed stands with each of them."""
    # What came of it.
    stream = False
    model: str | None = None
    served_by: ServedBy | None = None
    first_token: float | None = None
    content = b""
    """JSON of the answer, for the ledger."""
    finished = False

    def __init__(
        self, id: str, at: float, started: int, kind: str = "other", purpose: Purpose = "user"
    ) -> None:
        self.id = id
        self.at = at
        """Wall time of arrival, seconds."""
        self.started = self._entered = started
        """perf_counter_ns of arrival."""
        self.kind = kind
        self.purpose: Purpose = purpose
        self._stage: str | None = "admit"
        self.stages: dict[str, float] = {}
        self.reasons: dict[str, str] = {}
        """Stage to the sentence of its decision."""
        self.open: list[OpenAttempt] = []
        self.attempts: list[Attempt] = []

    # -- stages ---------------------------------------------------------------------------------

    def enter(self, stage: str | None) -> None:
        """The time from now on is that of ``stage``, or of none; one that is entered again adds
        up."""
        now, before = perf_counter_ns(), self._stage
        if before is not None:
            passed, stages = (now - self._entered) // 100 / 10_000, self.stages
            stages[before] = stages[before] + passed if before in stages else passed
        self._entered, self._stage = now, stage

    def note(self, stage: str, sentence: str) -> None:
        """Add the reason of a stage's decision to the receipt."""
        before = self.reasons.get(stage)
        self.reasons[stage] = sentence if before is None else f"{before}; {sentence}"

    # -- attempts -------------------------------------------------------------------------------

    def begin(self, model: str, waited: float = 0.0) -> OpenAttempt:
        """A try at ``model`` begins, after ``waited`` milliseconds of backoff."""
        attempt = OpenAttempt(self, model, waited, perf_counter_ns())
        self.open.append(attempt)
        return attempt

    def abandon(self, code: str = LEFT.code) -> None:
        """End the attempts under way, as nobody waits for them any more. A partial answer of the
        first of them counts as the answer, though no client got it."""
        for attempt in tuple(self.open):
            usage = attempt.billed() if attempt.billed is not None else None
            if usage is not None and self.answering is None:
                self.answering, self.usage = attempt._end(code, None, None), usage
            else:
                attempt._end(code, None, usage)

    @property
    def asked(self) -> bool:
        """Whether a model was tried."""
        return bool(self.attempts or self.open)

    def bill(self) -> list[tuple[Attempt, Usage | None]]:
        """Every attempt with what it is billed, as far as that is known."""
        return [(one, self.usage if one is self.answering else one.usage) for one in self.attempts]

    def in_order(self) -> tuple[Attempt, ...]:
        """As receipts list them: the one that answered is last."""
        attempts, last = self.attempts, self.answering
        if last is None or attempts[-1] is last:
            return tuple(attempts)
        return (*(one for one in attempts if one is not last), last)


def ms_since(started: int) -> float:
    """Milliseconds since ``started`` (perf_counter_ns)."""
    return (perf_counter_ns() - started) // 1000 / 1000
