"""Whether, and after how long, the same model is asked again. Pure.

Every answer carries its sentence. Clock and chance come from the caller.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec

from tidegate.base import parse_duration
from tidegate.gateway.targets import Failure

MOST_WAIT = 8.0
"""Longest backoff, in seconds; what a provider asks for may be longer."""
PATIENCE = 5.0
"""Seconds that a request waits for its model at most while another one could answer at once."""
_SANE = 86400.0


class Move(msgspec.Struct, frozen=True):
    """What follows a failed try. ``wait`` is None to go over to the next model."""

    wait: float | None
    reason: str
    paid: bool = False
    """Whether it comes out of the retry budget."""


class Situation(msgspec.Struct, frozen=True):
    """What a move depends on beside the failure."""

    tries: int
    """Tries at this model so far, for this request."""
    most: int
    """Retries that the route allows."""
    backoff: float
    left: float
    """Seconds until the request's deadline."""
    fallbacks: int
    another_key: bool
    """Whether a key that did not just fail can be used now."""
    affordable: bool
    """Whether the budget has a retry left."""
    draw: float
    """Chance, in [0, 1)."""


_KEY_TROUBLE = frozenset((401, 402, 403))


def next_move(failure: Failure, at: Situation) -> Move:
    """Retry the same model, and when, or go over to the next one."""
    if failure.upstream_status in _KEY_TROUBLE or failure.upstream_status == 429:
        if at.another_key:
            return Move(0.0, "another key of the model is tried at once")
        if failure.upstream_status in _KEY_TROUBLE:
            return Move(None, "the model has no other key")
    if not failure.again:
        return Move(None, f"{failure.code} is not tried again on the same model")
    if at.tries > at.most:
        return Move(None, f"{at.tries} tries are all that the route allows")
    if not at.affordable:
        return Move(None, "the route's retry budget is used up")
    wait = backoff_wait(at.tries, at.backoff, at.draw)
    if failure.wait is not None:
        # Not all at once, and never earlier than the provider said.
        wait = max(wait, failure.wait + at.draw * min(1.0, failure.wait / 10))
    most = min(PATIENCE, at.left / 2) if at.fallbacks else at.left
    if wait >= most:
        return Move(None, f"a wait of {wait:.3g} s is too long with {at.left:.3g} s left")
    return Move(wait, f"tried again after {wait:.3g} s", paid=True)


def backoff_wait(tries: int, base: float, draw: float) -> float:
    """Exponential backoff with full jitter: anything from 0 to ``base`` doubled each time."""
    return draw * min(MOST_WAIT, base * 2.0 ** min(max(tries - 1, 0), 32))


def requested_wait(headers: Mapping[bytes, bytes], now: float) -> float | None:
    """The wait in seconds that a provider asks for; ``now`` is wall time. None when it asks for
    none that makes sense (below 0, above a day). The first form that is understood counts:

    ``retry-after-ms``; ``retry-after`` in seconds or as an HTTP date (RFC 9110, 10.2.3);
    ``x-ratelimit-reset-*`` of what has nothing remaining, as a duration (``6m0s``) or seconds;
    ``x-ratelimit-reset`` in seconds or as an epoch; ``anthropic-ratelimit-*-reset`` (RFC 3339).
    """
    milliseconds = _number(headers.get(b"retry-after-ms"))
    if milliseconds is not None:
        return _sane(milliseconds / 1000)
    after = headers.get(b"retry-after")
    if after is not None:
        seconds = _number(after)
        return _sane(seconds if seconds is not None else _date_wait(after, now))
    found = [
        wait
        for name, value in headers.items()
        if b"ratelimit" in name and b"reset" in name and _used_up(headers, name)
        if (wait := _sane(_reset_wait(value, now))) is not None
    ]
    return max(found, default=None)


def _used_up(headers: Mapping[bytes, bytes], reset: bytes) -> bool:
    remaining = _number(headers.get(reset.replace(b"reset", b"remaining")))
    return remaining is None or remaining <= 0


def _number(value: bytes | None) -> float | None:
    try:
        number = float(value) if value is not None and len(value) < 32 else None
    except ValueError:
        return None
    return number if number is not None and math.isfinite(number) else None


def _reset_wait(value: bytes, now: float) -> float | None:
    number = _number(value)
    if number is not None:
        return number - now if number > 1e9 else number
    text = value.decode("latin-1")[:64]
    try:
        return parse_duration(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return _date_wait(value, now)
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - now


def _date_wait(value: bytes, now: float) -> float | None:
    try:
        moment = parsedate_to_datetime(value.decode("latin-1")[:64])
        return max(0.0, moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def _sane(seconds: float | None) -> float | None:
    return seconds if seconds is not None and 0 <= seconds <= _SANE else None
