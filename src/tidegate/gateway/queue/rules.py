"""Decisions of a route's queue: run, wait, displace or refuse, each with its reason; pure.

A class is the index of a priority in ``PRIORITIES``: 0 is served first, 2 is shed first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from tidegate.switches import PRIORITIES

_CALM = 0.75
"""A surge ends below this share of the load at which it began."""
_LONGEST_RETRY = 60


class QueueLoad(msgspec.Struct, frozen=True):
    """One route, over all workers of the gateway."""

    concurrent: int
    """Most requests that may ask a model at once."""
    most: int
    """Most requests that may wait."""
    in_use: int
    waiting: tuple[int, int, int]
    """Requests that wait, by class."""
    service: float
    """Seconds that a request holds its place (``service_time``); 0 when nobody knows."""


class QueueVerdict(msgspec.Struct, frozen=True):
    """The decision about one request. ``displace``: it waits, and the newest of the class ``shed``
    is refused."""

    kind: Literal["take", "wait", "displace", "full", "late"]
    wait: float
    """Predicted seconds until there is a place."""
    reason: str
    shed: int | None = None


def predicted_wait(ahead: int, service: float, concurrent: int) -> float:
    """Seconds until one with ``ahead`` others before it gets a place, all places being taken: one
    falls free every ``service / concurrent`` seconds."""
    return (ahead + 1) * service / concurrent


def arrive(standing: QueueLoad, priority: int, patience: float) -> QueueVerdict:
    """The decision about a request of class ``priority`` that can wait ``patience`` seconds."""
    ahead = sum(standing.waiting[: priority + 1])
    if standing.in_use < standing.concurrent and ahead == 0:
        return QueueVerdict("take", 0.0, "a place is free and nobody stands before it")
    wait = predicted_wait(ahead, standing.service, standing.concurrent)
    if wait > patience:
        words = f"the wait would be about {wait:.1f} s, longer than it can wait ({patience:.1f} s)"
        return QueueVerdict("late", wait, words)
    if sum(standing.waiting) < standing.most:
        return QueueVerdict("wait", wait, f"{ahead} stand before it")
    shed = lowest(standing.waiting)
    if shed is not None and shed > priority:
        words = f"the queue is full, and one of priority {PRIORITIES[shed]} makes room for it"
        return QueueVerdict("displace", wait, words, shed)
    words = f"{standing.most} requests of its priority or a higher one wait already"
    return QueueVerdict("full", wait, words)


def lowest(waiting: Sequence[int]) -> int | None:
    """The lowest class that waits: it is shed first. None when nobody waits."""
    return next((c for c in reversed(range(len(waiting))) if waiting[c]), None)


def retry_after(wait: float) -> str:
    """Whole seconds for the header, 1 to 60."""
    return str(min(_LONGEST_RETRY, max(1, math.ceil(wait))))


def service_time(smoothed: float, quiet: float) -> float:
    """Seconds that a request holds its place: as ``smoothed`` over those that ended, but not less
    than ``quiet``, for which each that runs has held its own: a model that hangs ends nothing that
    could be smoothed."""
    return max(smoothed, quiet)


def smoothed(before: float, seconds: float) -> float:
    """The service time after one more request of ``seconds``: recent ones count more."""
    return seconds if before == 0 else before + 0.2 * (seconds - before)


class Surging(msgspec.Struct, frozen=True):
    on: bool
    reason: str


def surge(on: bool, load: float, above: float) -> Surging:
    """Whether the cap under load holds now. It begins above ``above`` and ends only well below it,
    so that a load near the threshold does not switch it with every request."""
    if load > above:
        return Surging(True, f"load {load:.0%} is above {above:.0%}")
    if on and load >= above * _CALM:
        return Surging(True, f"load {load:.0%} has not yet fallen below {above * _CALM:.0%}")
    return Surging(False, f"load {load:.0%} is not above {above:.0%}")
