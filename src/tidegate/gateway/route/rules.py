"""The chain of a request: the route's model, then its fallbacks; pure, with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class Chain(msgspec.Struct, Generic[T], frozen=True):
    """Targets in the order in which they are tried, and why this order."""

    targets: Sequence[T]
    reason: str


def choose(targets: Sequence[T]) -> Chain[T]:
    """A fixed route: the first model answers, the others stand in for it, in the spec's order."""
    reason = "fixed" if len(targets) == 1 else f"fixed, {len(targets) - 1} to fall back on"
    return Chain(targets, reason)
