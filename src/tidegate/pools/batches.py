"""Batching of texts to embed: requests share runs of the model, and a long one starves none.

A request gives one slice at a time and waits for it, so requests take turns. At most one batch
runs; what arrives meanwhile makes the next one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import msgspec

from tidegate.pools.encoder import EncodedTexts, Vector

SLICE = 16
"""Most texts of one request in a batch."""
BATCH = 32
"""Most texts in a batch."""


class Overloaded(Exception):
    """The queue of slices is full."""


class BatchStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Slices that wait, and the batches and texts encoded since the start."""

    waiting: int
    batches: int
    texts: int


class Batcher:
    """Runs ``encode`` in a thread of its own, inside ``async with batcher.running()``."""

    def __init__(
        self, encode: Callable[[Sequence[str]], EncodedTexts], most_waiting: int = 256
    ) -> None:
        self._encode, self._most_waiting = encode, most_waiting
        self._waiting: deque[tuple[Sequence[str], asyncio.Future[EncodedTexts]]] = deque()
        self._arrived = asyncio.Event()
        self._batches = self._texts = 0

    def statistics(self) -> BatchStatistics:
        return BatchStatistics(waiting=len(self._waiting), batches=self._batches, texts=self._texts)

    async def slices(self, texts: Sequence[str]) -> AsyncIterator[tuple[Vector, list[int]]]:
        """Vectors and token counts of ``texts``, slice by slice in order; raises Overloaded."""
        for at in range(0, len(texts), SLICE):
            if len(self._waiting) >= self._most_waiting:
                raise Overloaded
            future: asyncio.Future[EncodedTexts] = asyncio.get_running_loop().create_future()
            self._waiting.append((texts[at : at + SLICE], future))
            self._arrived.set()
            # One slice at a time: the next one queues behind the slices of other requests.
            encoded = await future
            yield encoded.vectors, encoded.tokens

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        with ThreadPoolExecutor(1, thread_name_prefix="encoder") as executor:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(self._run(executor))
                try:
                    yield
                finally:
                    task.cancel()

    async def _run(self, executor: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            jobs = self._next_batch()
            if not jobs:
                continue
            texts = [text for part, _ in jobs for text in part]
            try:
                encoded = await loop.run_in_executor(executor, self._encode, texts)
            except Exception as error:  # noqa: BLE001 (a plug-in's call; the requests get it)
                self._fail(jobs, error)
                continue
            self._batches += 1
            self._texts += len(texts)
            self._deliver(jobs, encoded)

    def _next_batch(self) -> list[tuple[Sequence[str], asyncio.Future[EncodedTexts]]]:
        jobs, size = [], 0
        while self._waiting and size + len(self._waiting[0][0]) <= BATCH:
            part, future = self._waiting.popleft()
            # A future that is done here was cancelled: its client left, so nothing is computed.
            if not future.done():
                jobs.append((part, future))
                size += len(part)
        if not self._waiting:
            self._arrived.clear()
        return jobs

    def _fail(
        self, jobs: list[tuple[Sequence[str], asyncio.Future[EncodedTexts]]], error: Exception
    ) -> None:
        for _, future in jobs:
            if not future.done():
                future.set_exception(error)

    def _deliver(
        self, jobs: list[tuple[Sequence[str], asyncio.Future[EncodedTexts]]], encoded: EncodedTexts
    ) -> None:
        at = 0
        for part, future in jobs:
            end = at + len(part)
            if not future.done():
                future.set_result(EncodedTexts(encoded.vectors[at:end], encoded.tokens[at:end]))
            at = end
