"""What one request cost; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tidegate.base.money import Usage, cost_of
from tidegate.gateway.values import Call, Line
from tidegate.ledger.receipts import Attempt
from tidegate.release.values import Model
from tidegate.stores.windows import NANO


def cost(call: Call, models: Mapping[str, Model]) -> float | None:
    """US dollars of this request, None when unknown.

    A replayed answer costs 0, and so does a request that no model got or that was answered with
    an error: providers do not bill those. A model that was asked and whose usage nobody knows (it
    timed out, it lost to its hedge, the client left) has an unknown cost, never 0; so has a request
    that was rescued after such a failure, whose bill has both. An attempt that broke off while it
    answered says what it used, and that is added.
    """
    answered = call.usage is not None
    total = 0.0
    for attempt in call.attempts[:-1] if answered else call.attempts:
        if attempt.usage is not None:
            part = _price(attempt.model, attempt.usage, models)
        else:
            part = None if _may_bill(attempt) else 0.0
        if part is None:
            return None
        total += part
    if call.usage is None:
        return total
    part = _price(call.model, call.usage, models)
    return None if part is None else total + part


def _price(name: str | None, usage: Usage, models: Mapping[str, Model]) -> float | None:
    model = models.get(name or "")
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
"""Codes of tries without a status that reached no provider: no connection, or no key to use."""


def _sent(attempt: Attempt) -> bool:
    return attempt.status is not None or attempt.code not in _NEVER_SENT


def truth(call: Call, line: Line, worst: int, models: Mapping[str, Model]) -> int:
    """What ``call`` used of ``line``, in its unit. A try that may have been billed, and whose usage
    nobody knows, counts as ``worst``; so it is with money whose price nobody knows."""
    if line.charge:
        return 1
    if line.unit == "requests":  # of a model: as many as were sent to it
        return sum(_sent(one) and one.model in line.models for one in call.attempts)
    answered = call.usage is not None
    used = 0
    for attempt in call.attempts[:-1] if answered else call.attempts:
        if attempt.model in line.models:
            if attempt.usage is not None:
                used += _counted(attempt.model, attempt.usage, line, worst, models)
            elif _may_bill(attempt):
                used += worst
    if call.usage is not None and call.model in line.models:
        used += _counted(call.model, call.usage, line, worst, models)
    return used


def _counted(
    name: str | None, usage: Usage, line: Line, worst: int, models: Mapping[str, Model]
) -> int:
    if line.unit == "tokens":
        return usage.prompt + usage.completion
    dollars = _price(name, usage, models)
    return worst if dollars is None else math.ceil(dollars * NANO - 1e-6)
