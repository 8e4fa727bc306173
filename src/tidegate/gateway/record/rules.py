"""What one request cost, and what it used of its limits; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from tidegate.base import Usage, cost_of
from tidegate.gateway.plan import CountedLimit
from tidegate.ledger import Attempt
from tidegate.release import Model
from tidegate.stores import NANO

Bill: TypeAlias = Sequence[tuple[Attempt, Usage | None]]
"""Attempts, each with what the provider bills for it, None where that is not known."""


def cost(bill: Bill, models: Mapping[str, Model]) -> float | None:
    """US dollars of a request with these attempts; None when unknown.

    A replayed answer costs 0, and so does a request that no model got or that was answered with
    an error: providers do not bill those. A model that was asked and whose usage nobody knows (it
    timed out, it lost to its hedge, the client left) has an unknown cost, never 0; so has a request
    that was rescued after such a failure, whose bill has both.
    """
    total = 0.0
    for attempt, usage in bill:
        if usage is not None:
            part = _price(attempt.model, usage, models)
        else:
            part = None if _may_bill(attempt) else 0.0
        if part is None:
            return None
        total += part
    return total


def _price(name: str, usage: Usage, models: Mapping[str, Model]) -> float | None:
    model = models.get(name)
    return cost_of(usage, model.price) if model else None


def _may_bill(attempt: Attempt) -> bool:
    return attempt.status == 200 if attempt.status is not None else _sent(attempt)


_NEVER_SENT = frozenset(
    (
        "upstream_unreachable",
        "upstream_connect_timeout",
        "upstream_breaker_open",
        "upstream_key_rejected",
        "upstream_rate_limited",
    )
)
"""Codes of attempts that reached no provider, and so cost nothing: no connection, or no key."""


def _sent(attempt: Attempt) -> bool:
    return attempt.status is not None or attempt.code not in _NEVER_SENT


def used_of(bill: Bill, limit: CountedLimit, worst: int, models: Mapping[str, Model]) -> int:
    """The use of ``limit`` by a request, in its unit. An attempt that may have been billed, and
    whose usage is unknown, counts as ``worst``; so does money whose price is unknown."""
    if limit.charge:
        return 1
    if limit.unit == "requests":  # of a model: as many as were sent to it
        return sum(_sent(one) and one.model in limit.models for one, _ in bill)
    used = 0
    for attempt, usage in bill:
        if attempt.model in limit.models:
            if usage is not None:
                used += _counted(attempt.model, usage, limit, worst, models)
            elif _may_bill(attempt):
                used += worst
    return used


def _counted(
    name: str, usage: Usage, limit: CountedLimit, worst: int, models: Mapping[str, Model]
) -> int:
    if limit.unit == "tokens":
        return usage.prompt + usage.completion
    dollars = _price(name, usage, models)
    return worst if dollars is None else math.ceil(dollars * NANO - 1e-6)
