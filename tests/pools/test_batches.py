"""Requests share batches, take turns, and are refused when too many wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy
import pytest

from tidegate.pools.batches import SLICE, Batcher, Overloaded
from tidegate.pools.encoder import EncodedTexts


class Lengths:
    """An encoder whose vector of a text is its length; it waits for ``gate`` before each batch."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.batches: list[int] = []

    def __call__(self, texts: Sequence[str]) -> EncodedTexts:
        assert self.gate.wait(5)
        self.batches.append(len(texts))
        if "bad" in texts:
            raise RuntimeError("cannot")
        return EncodedTexts(numpy.array([[float(len(t))] for t in texts]), [1] * len(texts))


async def gather(batcher: Batcher, texts: Sequence[str]) -> list[float]:
    return [float(v[0]) async for part, _ in batcher.slices(texts) for v in part]


def test_small_requests_share_one_batch_and_get_their_own_vectors() -> None:
    async def scenario() -> None:
        encoder = Lengths()
        batcher = Batcher(encoder)
        async with batcher.running():
            first = asyncio.create_task(gather(batcher, ["x"]))
            await asyncio.sleep(0.05)  # it is in the encoder, the next ones wait
            others = [asyncio.create_task(gather(batcher, ["y" * n])) for n in (2, 3, 4)]
            await asyncio.sleep(0.05)
            encoder.gate.set()
            assert await first == [1.0]
            assert [await task for task in others] == [[2.0], [3.0], [4.0]]
        assert encoder.batches == [1, 3]
        assert batcher.statistics().texts == 4

    asyncio.run(scenario())


def test_a_long_request_takes_turns_with_a_short_one() -> None:
    async def scenario() -> None:
        encoder = Lengths()
        encoder.gate.set()
        batcher = Batcher(encoder)
        async with batcher.running():
            long = asyncio.create_task(gather(batcher, ["x"] * SLICE * 20))
            await asyncio.sleep(0)
            assert await gather(batcher, ["yy"]) == [2.0]
            assert not long.done()
            assert len(await long) == SLICE * 20

    asyncio.run(scenario())


def test_more_waiting_slices_than_allowed_are_refused() -> None:
    async def scenario() -> None:
        encoder = Lengths()
        batcher = Batcher(encoder, most_waiting=1)
        async with batcher.running():
            tasks = [asyncio.create_task(gather(batcher, ["x"]))]
            await asyncio.sleep(0.05)
            tasks.append(asyncio.create_task(gather(batcher, ["y"])))
            await asyncio.sleep(0.05)
            with pytest.raises(Overloaded):
                await gather(batcher, ["z"])
            encoder.gate.set()
            assert await asyncio.gather(*tasks) == [[1.0], [1.0]]

    asyncio.run(scenario())


def test_a_batch_that_fails_fails_its_requests_and_not_the_next_ones() -> None:
    async def scenario() -> None:
        encoder = Lengths()
        encoder.gate.set()
        batcher = Batcher(encoder)
        async with batcher.running():
            with pytest.raises(RuntimeError, match="cannot"):
                await gather(batcher, ["bad"])
            assert await gather(batcher, ["good"]) == [4.0]

    asyncio.run(scenario())


def test_a_request_that_was_given_up_is_not_encoded() -> None:
    async def scenario() -> None:
        encoder = Lengths()
        batcher = Batcher(encoder)
        async with batcher.running():
            first = asyncio.create_task(gather(batcher, ["x"]))
            await asyncio.sleep(0.05)
            given_up = asyncio.create_task(gather(batcher, ["yy"]))
            await asyncio.sleep(0.05)
            given_up.cancel()
            await asyncio.sleep(0)
            encoder.gate.set()
            await first
            assert await gather(batcher, ["zzz"]) == [3.0]
        assert encoder.batches == [1, 1]

    asyncio.run(scenario())
