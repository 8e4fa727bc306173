"""Whose turn it is to be asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

import msgspec

from tidegate.gateway.journal import OpenAttempt
from tidegate.gateway.targets import Target


class Turn(msgspec.Struct, frozen=True, eq=False):
    """One try at one model."""

    target: Target
    attempt: OpenAttempt
    fallbacks: int
    """Models that may still be asked when this one gives no answer."""


T = TypeVar("T")
Try: TypeAlias = Callable[[Turn], Awaitable[T]]
"""Asks the model whose turn it is. Raises AttemptFailed, with the attempt ended, and RequestError
when the model's provider cannot be asked this, with nothing sent."""
