"""What it is to ask one model once: the callable that retries, hedges and holds compose over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

from tidegate.gateway.call.target import Target
from tidegate.gateway.values import Call

T = TypeVar("T")
Ask: TypeAlias = Callable[[Call, Target, int], Awaitable[T]]
"""Ask one target, at perf_counter_ns; raises AttemptFailed."""
