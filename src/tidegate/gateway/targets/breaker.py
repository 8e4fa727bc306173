"""A circuit breaker: ``(state, event) -> (state, sentence)``, as a table. Pure.

    closed     requests pass; failures and successes of the window are counted
    open       nothing passes until ``until``
    half-open  one probe is under way, and nothing else passes

Each worker has its own breakers, one for a model and key: a worker learns within a few requests
what another knows, and no store stands between a fault and its breaker. An open period brings one
probe; periods grow from ``open`` to three times that, so that a long outage is probed rarely and a
recovery is seen soon.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

from tidegate.release import Breaker

GROWTH = 1.5
MOST_GROWTH = 3.0


class Closed(msgspec.Struct, frozen=True):
    """Counts of the running half window (since ``since``) and of the half before it."""

    since: float
    good: int = 0
    bad: int = 0
    good_before: int = 0
    bad_before: int = 0


class Open(msgspec.Struct, frozen=True):
    until: float
    period: float


class HalfOpen(msgspec.Struct, frozen=True):
    period: float


State: TypeAlias = Closed | Open | HalfOpen
BreakerEvent: TypeAlias = Literal["ask", "answered", "failed", "broke", "abandoned"]
"""``ask``: a request wants to pass. ``broke``: an answer whose beginning was told as ``answered``
broke off: it is one try, and a failed one. ``abandoned``: it ended without saying anything of the
model (its client left, it lost to its hedge)."""
BreakerStep: TypeAlias = tuple[State, str]


def admits(state: State, now: float) -> bool:
    """Whether a request may pass; one that does from an open state is the probe."""
    return isinstance(state, Closed) or (isinstance(state, Open) and now >= state.until)


def step(state: State, event: BreakerEvent, now: float, settings: Breaker) -> BreakerStep:
    """The next state and why. An event that a state does not expect changes nothing."""
    return TABLE[type(state), event](state, now, settings)


def _stay(state: State, now: float, settings: Breaker) -> BreakerStep:
    return state, ""


def _probe(state: State, now: float, settings: Breaker) -> BreakerStep:
    assert isinstance(state, Open)
    if now < state.until:
        return state, ""
    return HalfOpen(state.period), f"half-open: one probe after {state.period:g} s"


def _rolled(state: Closed, now: float, settings: Breaker) -> Closed:
    half = settings.window / 2
    gone = now - state.since
    if gone < half:
        return state
    if gone < settings.window:
        return Closed(now, good_before=state.good, bad_before=state.bad)
    return Closed(now)


def _good(state: State, now: float, settings: Breaker) -> BreakerStep:
    assert isinstance(state, Closed)
    rolled = _rolled(state, now, settings)
    return (
        Closed(rolled.since, rolled.good + 1, rolled.bad, rolled.good_before, rolled.bad_before),
        "",
    )


def _bad(state: State, now: float, settings: Breaker) -> BreakerStep:
    assert isinstance(state, Closed)
    state = _rolled(state, now, settings)
    state = msgspec.structs.replace(state, bad=state.bad + 1)
    bad = state.bad + state.bad_before
    tries = bad + state.good + state.good_before
    if bad < settings.minimum or bad < settings.failures * tries:
        return state, ""
    words = f"open: {bad} of {tries} tries failed within {settings.window:g} s"
    return Open(now + settings.open, settings.open), words


def _broke(state: State, now: float, settings: Breaker) -> BreakerStep:
    assert isinstance(state, Closed)
    state = _rolled(state, now, settings)
    good, before = state.good, state.good_before
    good, before = (good - 1, before) if good else (good, max(0, before - 1))
    return _bad(msgspec.structs.replace(state, good=good, good_before=before), now, settings)


def _close(state: State, now: float, settings: Breaker) -> BreakerStep:
    return Closed(now), "closed: the probe was answered"


def _reopen(state: State, now: float, settings: Breaker) -> BreakerStep:
    assert isinstance(state, HalfOpen)
    period = min(state.period * GROWTH, settings.open * MOST_GROWTH)
    return Open(now + period, period), f"open again for {period:g} s: the probe failed"


def _free(state: State, now: float, settings: Breaker) -> BreakerStep:
    assert isinstance(state, HalfOpen)
    return Open(now, state.period), "open: the probe was abandoned, the next request is one"


TABLE: dict[tuple[type, BreakerEvent], Callable[[State, float, Breaker], BreakerStep]] = {
    (Closed, "ask"): _stay,
    (Closed, "answered"): _good,
    (Closed, "failed"): _bad,
    (Closed, "broke"): _broke,
    (Closed, "abandoned"): _stay,
    (Open, "ask"): _probe,
    (Open, "answered"): _stay,  # of a request that passed before it opened
    (Open, "failed"): _stay,
    (Open, "broke"): _stay,
    (Open, "abandoned"): _stay,
    (HalfOpen, "ask"): _stay,
    (HalfOpen, "answered"): _close,
    (HalfOpen, "failed"): _reopen,
    (HalfOpen, "broke"): _stay,  # of a request that passed before it opened
    (HalfOpen, "abandoned"): _free,
}
