"""The route's rules for asking its models."""

from __future__ import annotations

import msgspec

from tidegate.gateway.plan.budgets import HedgeBudget, RetryBudget
from tidegate.gateway.plan.checks import AnswerCheck
from tidegate.release import Caps, Retries, Timeouts


class AskTerms(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """On what terms models are asked: the same for every request to a route."""

    timeouts: Timeouts
    retries: Retries
    retry_budget: RetryBudget
    hedge: HedgeBudget | None = None
    answer_bytes: int = Caps().answer_bytes
    checks: tuple[AnswerCheck, ...] = ()
    """A whole answer that fails one is a failed attempt while another model can be asked."""
