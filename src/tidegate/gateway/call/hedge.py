"""Hedging: a second model is asked beside one that is slow to begin; the first to answer wins, and
the other is cancelled.

The gateway runs no tools and keeps no state of an answer, so asking twice costs money and does
nothing twice. What may be spent is a share of the route's requests, counted by each worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from tidegate.base import RequestError
from tidegate.gateway.call.stream import Stream
from tidegate.gateway.call.turns import Try, Turn
from tidegate.gateway.journal import Journal, OpenAttempt
from tidegate.gateway.plan import HedgeBudget
from tidegate.gateway.targets import AttemptFailed, Failure, Target


class HasAttempt(Protocol):
    """An answer, or a stream that has begun."""

    @property
    def attempt(self) -> OpenAttempt: ...


T = TypeVar("T", bound=HasAttempt)


def hedged(
    journal: Journal, attempt: Try[T], budget: HedgeBudget | None, targets: Sequence[Target]
) -> Try[T]:
    """``attempt`` for one request, hedged with the model that follows in ``targets``; without a
    budget ``attempt`` itself."""
    if budget is None:
        return attempt
    budget.earn()

    async def race(turn: Turn) -> T:
        other = _other(turn.target, targets)
        if other is None:
            return await attempt(turn)
        return await _race(journal, attempt, budget, turn, other)

    return race


def _other(target: Target, targets: Sequence[Target]) -> Target | None:
    """The target to hedge with: the next of the chain, or the same one where the chain has only
    one. None beside the last of several."""
    if len(targets) == 1:
        return target
    place = next((at for at, one in enumerate(targets) if one is target), len(targets))
    return targets[place + 1] if place + 1 < len(targets) else None


class _Runner(Generic[T]):
    """One of the two models under way."""

    def __init__(self, attempt: Try[T], turn: Turn) -> None:
        self.turn = turn
        self.task: asyncio.Future[T] = asyncio.ensure_future(attempt(turn))

    @property
    def result(self) -> T | None:
        """Its answer, None as long as there is none."""
        done = self.task.done() and not self.task.cancelled() and self.task.exception() is None
        return self.task.result() if done else None

    @property
    def failure(self) -> Failure | None:
        """Its failure; None while it runs, and when it could not be asked at all. Raises what is
        not a failure of a model."""
        error = None
        if self.task.done() and not self.task.cancelled():
            error = self.task.exception()
        if error is None or isinstance(error, RequestError):
            return None
        if isinstance(error, AttemptFailed):
            return error.failure
        raise error

    @property
    def refused(self) -> bool:
        """Whether the provider refused the request itself, so that no other model is asked."""
        return self.failure is not None and not self.failure.fall_back

    async def stop(self) -> None:
        """Cancel it; its connection is closed when this returns."""
        self.task.cancel()
        await asyncio.wait((self.task,))
        if isinstance(self.result, Stream):
            self.result.drop()

    def lose(self) -> None:
        """Record that the other target won. This one's failure has ended its attempt already; it
        may also have answered, when both did in one turn of the loop."""
        if self.result is None and not self.task.cancelled() and self.failure is None:
            self.turn.attempt.discard()  # it could not be asked this: nothing was sent
        self.turn.attempt.lose(self.result is not None)


async def _race(
    journal: Journal, attempt: Try[T], budget: HedgeBudget, turn: Turn, other: Target
) -> T:
    first = _Runner(attempt, turn)
    running = [first]
    try:
        await asyncio.wait((first.task,), timeout=budget.after)
        if first.task.done() or not budget.take():
            return await first.task
        hedge = Turn(other, journal.begin(other.model.name), turn.fallbacks)
        second = _Runner(attempt, hedge)
        running.append(second)
        winner = await _winner(first, second)
        loser = second if winner is first else first
        await loser.stop()
        loser.lose()
        return await winner.task
    except AttemptFailed as failed:
        if failed.failure.model is None and running[-1].failure is failed.failure:
            named = running[-1].turn.target.model.name
            failed.failure = msgspec.structs.replace(failed.failure, model=named)
        raise
    except RequestError:
        for one in running:
            one.turn.attempt.discard()  # neither could be asked this: nothing was sent
        raise
    except BaseException:
        for one in running:
            await one.stop()
        raise


async def _winner(first: _Runner[T], second: _Runner[T]) -> _Runner[T]:
    """The attempt that counts: the one that answered, else the first one's failure; the second's
    where its policy refused the request, as no other model is asked then."""
    while True:
        if first.result is not None or first.refused:
            return first
        if second.result is not None:
            return second
        pending = [one.task for one in (first, second) if not one.task.done()]
        if not pending:
            return second if second.failure is not None and second.failure.policy else first
        await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
