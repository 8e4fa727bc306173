"""A release that a worker has loaded: plans, targets and flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from tidegate.gateway.plan.values import Plan
from tidegate.gateway.targets import Target


class FlagResolution(Protocol):
    @property
    def variant(self) -> str | None: ...

    @property
    def reason(self) -> str: ...


class FlagEvaluator(Protocol):
    """A flag document, ready to be asked."""

    def names(self) -> frozenset[str]: ...

    def resolve(self, flag: str, user: str | None, about: Mapping[str, Any]) -> FlagResolution: ...


class LoadedRelease:
    """One release, ready to serve. ``flags`` are those that it pins; None where it pins none."""

    def __init__(
        self,
        digest: str,
        plans: Mapping[str, Plan],
        targets: Mapping[str, Target],
        flags: FlagEvaluator | None = None,
    ) -> None:
        self.digest = digest
        self.plans = plans
        self.targets = targets
        self.flags = flags
        self.running = 0
        """Requests that it serves at this moment."""
        self.header = ("x-tidegate-release", digest)
