"""What one request cost; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tidegate.base.money import cost_of
from tidegate.gateway.values import Call, Line
from tidegate.ledger.receipts import Attempt
from tidegate.release.values import Model
from tidegate.stores.windows import NANO


def cost(call: Call, models: Mapping[str, Model]) -> float | None:
    """US dollars of this request, None when unknown.

    A replayed answer costs 0, and so does a request that no model got or that was answered with
    an error: providers do not bill those. A model that was asked and whose usage nobody knows (it
    timed out, it was cut, the client left) has an unknown cost, never 0; so has a request that was
    rescued after such a failure, whose bill has both.
    """
    if any(_may_bill(attempt) for attempt in call.attempts[:-1]):
        return None
    if call.usage is not None:
        model = models.get(call.model or "")
        return cost_of(call.usage, model.price) if model else None
    if call.replayed is not None or call.cache in ("hit", "shared"):
        return 0.0
    return None if any(_may_bill(attempt) for attempt in call.attempts) else 0.0


def _may_bill(attempt: Attempt) -> bool:
    if attempt.status is None:
        return attempt.code not in ("upstream_unreachable", "upstream_connect_timeout")
    return attempt.status == 200


def truth(call: Call, line: Line, worst: int, models: Mapping[str, Model]) -> int:
    """What ``call`` used of ``line``, in its unit. A try that may have been billed, and whose usage
    nobody knows, counts as ``worst``; so it is with money whose price nobody knows."""
    if line.charge:
        return 1
    if line.unit == "requests":  # of a model: as many as were sent to it
        return sum(attempt.model in line.models for attempt in call.attempts)
    tries, known = call.attempts, 0
    if call.usage is not None:
        tries = tries[:-1]
        if call.model in line.models:
            known = _counted(call, line, worst, models)
    unknown = sum(attempt.model in line.models and _may_bill(attempt) for attempt in tries)
    return known + unknown * worst


def _counted(call: Call, line: Line, worst: int, models: Mapping[str, Model]) -> int:
    usage, model = call.usage, models.get(call.model or "")
    if usage is None or model is None:
        return 0
    if line.unit == "tokens":
        return usage.prompt + usage.completion
    dollars = cost_of(usage, model.price)
    return worst if dollars is None else math.ceil(dollars * NANO - 1e-6)
