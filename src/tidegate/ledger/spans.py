"""What the ledger keeps of a span: where it hangs, when it ran, and what Tidegate reads off it."""

from __future__ import annotations

import msgspec

JOURNEY, STAGE = "tidegate.journey", "tidegate.stage"
LONGEST_NAME = 200
LONGEST_VALUE = 256
MOST_ATTRIBUTES = 32

Scalar = str | int | float | bool


class Span(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Ids are lower-case hex (trace 32 digits, span 16); times are nanoseconds since the epoch
    on the clock of the process that made the span."""

    trace: str
    span: str
    start_ns: int
    end_ns: int
    name: str = ""
    service: str = ""
    parent: str | None = None
    error: bool = False
    journey: str | None = None
    """Name of the journey, on the span that is the root of one."""
    stage: str | None = None
    attributes: dict[str, Scalar] = {}
    """Only those named ``tidegate.*``, bounded in number and length."""


class SpanBatch(msgspec.Struct, frozen=True, kw_only=True):
    """What arrived at the operator's door at once. ``seen``: seconds since the epoch."""

    seen: float
    spans: tuple[Span, ...]


def tidy(text: str, longest: int = LONGEST_NAME) -> str:
    """``text`` cut to ``longest`` characters, control characters turned into spaces."""
    cut = text[:longest]
    return cut if cut.isprintable() else "".join(c if c.isprintable() else " " for c in cut)
