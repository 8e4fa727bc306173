"""Times drawn from distributions; the same random source gives the same times."""

from __future__ import annotations

import math
import random
from typing import Protocol

import msgspec

from tidegate.base import UsageError, parse_duration


class Timing(Protocol):
    """One way to draw a time. ``fixed`` is the value when no randomness is needed, else None."""

    @property
    def fixed(self) -> float | None: ...

    def draw(self, source: random.Random) -> float:
        """Seconds, at least 0."""
        ...


class Constant(msgspec.Struct, frozen=True):
    """Always ``seconds``."""

    seconds: float = 0.0

    @property
    def fixed(self) -> float | None:
        return self.seconds

    def draw(self, source: random.Random) -> float:
        return self.seconds


class Lognormal(msgspec.Struct, frozen=True):
    """``median * exp(sigma * N(0, 1))``: the usual shape of response times."""

    median: float
    sigma: float = 0.3

    fixed = None

    def draw(self, source: random.Random) -> float:
        return self.median * math.exp(self.sigma * source.gauss(0.0, 1.0))


class Exponential(msgspec.Struct, frozen=True):
    """Exponential with mean ``mean`` seconds."""

    mean: float

    fixed = None

    def draw(self, source: random.Random) -> float:
        return -self.mean * math.log1p(-source.random())


class Empirical(msgspec.Struct, frozen=True):
    """One of the measured ``values`` (seconds), each as likely as another."""

    values: tuple[float, ...]

    fixed = None

    def draw(self, source: random.Random) -> float:
        return source.choice(self.values)


def parse_timing(text: str) -> Timing:
    """``20ms``, ``constant:20ms``, ``lognormal:200ms,0.3``, ``exponential:50ms`` or
    ``empirical:10ms,20ms,90ms``. Raises UsageError ``timing_unreadable``."""
    name, colon, rest = text.partition(":")
    if not colon:
        name, rest = "constant", text
    parts = [part for part in rest.split(",") if part.strip()]
    try:
        match name:
            case "constant" if len(parts) == 1:
                return Constant(parse_duration(parts[0]))
            case "lognormal" if len(parts) in (1, 2):
                return Lognormal(parse_duration(parts[0]), *map(float, parts[1:]))
            case "exponential" if len(parts) == 1:
                return Exponential(parse_duration(parts[0]))
            case "empirical" if parts:
                return Empirical(tuple(map(parse_duration, parts)))
    except ValueError as error:
        raise _unreadable(text, str(error)) from None
    raise _unreadable(text, "no such distribution, or the wrong number of values")


def _unreadable(text: str, why: str) -> UsageError:
    return UsageError(
        "timing_unreadable",
        f"{text!r} is not a timing: {why}",
        cure="write 20ms, lognormal:200ms,0.3, exponential:50ms or empirical:10ms,90ms",
    )
