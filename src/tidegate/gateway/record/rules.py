"""What one request cost; pure."""

from __future__ import annotations

from collections.abc import Mapping

from tidegate.base.money import cost_of
from tidegate.gateway.values import Call
from tidegate.ledger.receipts import Attempt
from tidegate.release.values import Model


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
    if call.replayed is not None or call.cache in ("hit", "shared", "idempotent"):
        return 0.0
    return None if any(_may_bill(attempt) for attempt in call.attempts) else 0.0


def _may_bill(attempt: Attempt) -> bool:
    if attempt.status is None:
        return attempt.code not in ("upstream_unreachable", "upstream_connect_timeout")
    return attempt.status == 200
