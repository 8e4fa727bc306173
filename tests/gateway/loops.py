"""Run a coroutine on the loop of production; what ends in the loop's exception handler fails it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """The result of ``main``. AssertionError for an exception that nobody handled."""
    lost: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: lost.append(context))
        result = runner.run(main)
    gc.collect(1)  # futures and tasks tell of their exceptions when they are collected
    assert not lost, lost
    return result


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Return as soon as ``condition()`` holds; AssertionError when it does not in time."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


async def soon(work: Awaitable[T], seconds: float = 5.0) -> T:
    """The result of ``work``, which must not take longer than ``seconds``."""
    async with asyncio.timeout(seconds):
        return await work
