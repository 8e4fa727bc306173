"""Ask a second model beside one that is slow to begin: the first to answer wins, the other is left.

The gateway runs no tools and keeps no state of an answer, so asking twice costs money and does
nothing twice. What may be spent is a share of the route's requests, counted by each worker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

from tidegate.base.errors import RequestError
from tidegate.base.money import Usage
from tidegate.gateway.call.ask import Ask
from tidegate.gateway.call.failed import HEDGE_LOST, LEFT, AttemptFailed
from tidegate.gateway.call.rules import Failure
from tidegate.gateway.call.stream import Stream, ms_since
from tidegate.gateway.call.target import Target
from tidegate.gateway.values import Answer, Call
from tidegate.ledger.receipts import Attempt
from tidegate.release.values import Hedge

T = TypeVar("T", Stream, Answer)

MOST_SAVED = 10.0
"""Hedges that a quiet time may save up for a bad one."""


class BudgetStatistics(msgspec.Struct, frozen=True):
    left: float
    hedged: int
    refused: int
    """Slow requests that were not hedged because the budget was used up."""


class HedgeBudget:
    """What one route may spend on hedges: each request earns a share of one, a hedge costs one.
    Over N requests at most 1 + ``spend`` * N are hedged."""

    def __init__(self, hedge: Hedge) -> None:
        self.after = hedge.after
        self._spend = hedge.spend
        self._left = 1.0 if hedge.spend else 0.0
        self._hedged = self._refused = 0

    def earn(self) -> None:
        self._left = min(MOST_SAVED, self._left + self._spend)

    def take(self) -> bool:
        """Whether one more request may be asked twice; if so it is paid for."""
        if self._left < 1.0:
            self._refused += 1
            return False
        self._left -= 1.0
        self._hedged += 1
        return True

    def statistics(self) -> BudgetStatistics:
        return BudgetStatistics(self._left, self._hedged, self._refused)


def hedged(ask: Ask[T], budget: HedgeBudget | None, targets: Sequence[Target]) -> Ask[T]:
    """``ask``, hedged with the model that follows in ``targets``; ``ask`` itself without budget."""
    if budget is None:
        return ask

    async def race(call: Call, target: Target, started: int) -> T:
        if not call.attempts:
            budget.earn()
        other = _other(target, targets)
        if other is None:
            return await ask(call, target, started)
        return await _race(call, ask, budget, (target, other), started)

    return race


def _other(target: Target, targets: Sequence[Target]) -> Target | None:
    """Who is asked beside ``target``: the next of the chain, of a chain of one the same again. The
    last of several has nobody left."""
    if len(targets) == 1:
        return target
    place = next((at for at, one in enumerate(targets) if one is target), len(targets))
    return targets[place + 1] if place + 1 < len(targets) else None


class _Try(Generic[T]):
    """One of the two models under way."""

    def __init__(self, call: Call, ask: Ask[T], target: Target, started: int) -> None:
        self.target, self.started = target, started
        self.billed: Usage | None = None
        """What it had written when it was stopped, as far as it is known."""
        self.task: asyncio.Task[T] = asyncio.ensure_future(ask(call, target, started))

    @property
    def result(self) -> T | None:
        """Its answer, None as long as there is none."""
        done = self.task.done() and not self.task.cancelled() and self.task.exception() is None
        return self.task.result() if done else None

    @property
    def failure(self) -> Failure | None:
        """Why it gave no answer; None while it runs, and when it could not be asked this. Raises
        what is no failure of a model."""
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
        """Whether it said no to the request itself: that is not shopped elsewhere."""
        return self.failure is not None and not self.failure.fall_back


async def _race(
    call: Call, ask: Ask[T], budget: HedgeBudget, pair: tuple[Target, Target], started: int
) -> T:
    first = _Try(call, ask, pair[0], started)
    running = [first]
    try:
        await asyncio.wait((first.task,), timeout=budget.after)
        if first.task.done() or not budget.take():
            return await first.task
        second = _Try(call, ask, pair[1], time.perf_counter_ns())
        running.append(second)
        winner = await _winner(first, second)
        loser = second if winner is first else first
        await _stop(call, loser)
        _note(call, loser, winner)
        return await winner.task
    except AttemptFailed as failed:
        if failed.failure.model is None and running[-1].failure is failed.failure:
            named = running[-1].target.model.name
            failed.failure = msgspec.structs.replace(failed.failure, model=named)
        raise
    except BaseException as error:
        for one in running:
            await _stop(call, one)
        if isinstance(error, asyncio.CancelledError):
            for one in running[1:]:  # the caller notes the first
                _put(call, one, LEFT.code, usage=one.billed)
            if first.billed is not None:
                call.model, call.usage = first.target.model.name, first.billed
        raise


async def _winner(first: _Try[T], second: _Try[T]) -> _Try[T]:
    """Who answered. When nobody did, the one whose failure counts: the first, unless the policy of
    the second refused the request, as nobody else is asked then."""
    while True:
        if first.result is not None or first.refused:
            return first
        if second.result is not None:
            return second
        pending = [one.task for one in (first, second) if not one.task.done()]
        if not pending:
            return second if second.failure is not None and second.failure.policy else first
        await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)


async def _stop(call: Call, one: _Try[T]) -> None:
    """Its connection is closed when this returns. A try that is stopped in its answer says on the
    call what that is billed; here it is one of two, so it is kept with the try."""
    one.task.cancel()
    await asyncio.wait((one.task,))
    if call.usage is not None:
        one.billed, call.usage, call.model = call.usage, None, None
    if isinstance(one.result, Stream):
        one.result.drop()


def _note(call: Call, loser: _Try[T], winner: _Try[T]) -> None:
    """Put the loser on the receipt, before the winner: the last attempt is what answered."""
    after: list[Attempt] = []
    if isinstance(winner.result, Answer):
        after.append(call.attempts.pop())
    result, failure = loser.result, loser.failure
    if isinstance(result, Answer):  # both in the same turn of the loop, so it is there already
        answered = [one for one in (*call.attempts, *after) if one.code is None]
        own = next(one for one in answered if one.model == result.model)
        (call.attempts if own in call.attempts else after).remove(own)
        if not after:
            after.append(call.attempts.pop())
    if result is not None:
        if isinstance(result, Stream):
            key, used = result.key, result.billed
            _put(call, loser, HEDGE_LOST, status=200, usage=used, key=key)
        else:
            _put(call, loser, HEDGE_LOST, status=200, usage=result.usage)
    elif failure is not None:
        status, usage = failure.upstream_status, failure.usage
        _put(call, loser, failure.code, status=status, usage=usage, key=failure.key)
    elif loser.task.cancelled():
        _put(call, loser, HEDGE_LOST, usage=loser.billed)
    call.attempts += after


def _put(
    call: Call,
    one: _Try[T],
    code: str,
    *,
    status: int | None = None,
    usage: Usage | None = None,
    key: str | None = None,
) -> None:
    call.attempts.append(
        Attempt(
            model=one.target.model.name,
            ms=ms_since(one.started),
            status=status,
            code=code,
            usage=usage,
            key=key,
        )
    )
