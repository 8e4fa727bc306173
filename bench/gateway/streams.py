"""Streamed requests, each chunk timed against the stamp that the upstream put into it."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from typing import cast

import httptools
import uvloop

from bench.gateway.children import BenchError
from bench.gateway.door import DIGITS, Door
from bench.gateway.figures import held_back, percentile
from bench.gateway.upstream_stream import CHUNKS

_STAMP = re.compile(rb"@(\d+),(\d+)@")


@dataclass
class Stream:
    """One streamed answer. Times are CLOCK_MONOTONIC nanoseconds."""

    asked: int
    """The client handed the request to the kernel."""
    reached: int = 0
    """The upstream had the whole request."""
    sent: list[int] = field(default_factory=list)
    """The upstream handed over each chunk."""
    received: list[int] = field(default_factory=list)
    """The client read each chunk."""
    finished: bool = False
    status: int = 0

    @property
    def first_token(self) -> float:
        """Milliseconds of both ways of the first chunk: what the upstream waited is left out."""
        return ((self.reached - self.asked) + (self.received[0] - self.sent[0])) / 1e6

    @property
    def delays(self) -> list[float]:
        """Milliseconds from the upstream's hand to the client's, of every chunk."""
        return [(got - gone) / 1e6 for gone, got in zip(self.sent, self.received, strict=True)]


class _Client(asyncio.Protocol):
    """One keep-alive connection that asks again as soon as an answer is complete."""

    def __init__(self, before: bytes, after: bytes, numbers: list[int], until: float) -> None:
        self._before, self._after, self._numbers, self._until = before, after, numbers, until
        self.streams: list[Stream] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def _ask(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._buffer = b""
        number = self._numbers[0]
        self._numbers[0] += 1
        request = self._before + b"%0*d" % (DIGITS, number) + self._after
        self.streams.append(Stream(asked=time.monotonic_ns()))
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._now = time.monotonic_ns()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(BenchError(f"not HTTP: {error!r}"))

    def on_body(self, body: bytes) -> None:
        stream = self.streams[-1]
        self._buffer += body
        end = 0
        for stamp in _STAMP.finditer(self._buffer):
            stream.reached = int(stamp.group(1))
            stream.sent.append(int(stamp.group(2)))
            stream.received.append(self._now)
            end = stamp.end()
        self._buffer = self._buffer[end:]

    def on_message_complete(self) -> None:
        stream = self.streams[-1]
        stream.status = self._parser.get_status_code()
        stream.finished = True
        if len(stream.sent) != CHUNKS or stream.status != 200:
            self._end(
                BenchError(
                    f"a stream ended with status {stream.status} and {len(stream.sent)} of "
                    f"{CHUNKS} chunks: {self._buffer[-400:]!r}"
                )
            )
        elif time.monotonic() < self._until and self._parser.should_keep_alive():
            asyncio.get_running_loop().call_soon(self._ask)
        else:
            self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(None if self.streams[-1].finished else BenchError("connection cut in a stream"))

    def _end(self, error: BenchError | None) -> None:
        self._transport.close()
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


async def _one_after_the_other(
    door: Door, numbers: list[int], until: float, out: list[Stream]
) -> None:
    before, after = door.request()
    loop = asyncio.get_running_loop()
    while time.monotonic() < until:
        _, client = await loop.create_connection(
            lambda: _Client(before, after, numbers, until), "127.0.0.1", door.port
        )
        async with asyncio.timeout(max(0.0, until - time.monotonic()) + 20):
            await client.done
        out.extend(client.streams)


async def _collect(door: Door, seconds: float, connections: int, first: int) -> list[Stream]:
    streams: list[Stream] = []
    numbers = [first]
    until = time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(_one_after_the_other(door, numbers, until, streams))
            await asyncio.sleep(0.017)  # spread over the upstream's period of chunks
    return streams


def run(door: Door, *, seconds: float, connections: int, tag: int) -> list[Stream]:
    """Stream from ``door`` for about ``seconds``. Raises BenchError when an answer is not whole."""
    try:
        return uvloop.run(_collect(door, seconds, connections, tag * 10**10))
    except ExceptionGroup as group:
        first = group.exceptions[0]
        raise BenchError(f"streaming failed: {first!r}") from first


def figures(streams: list[Stream]) -> dict[str, object]:
    """Milliseconds of one run: first token and chunk delay, chunks held back."""
    first = [stream.first_token for stream in streams]
    delays = [delay for stream in streams for delay in stream.delays]
    held = sum(held_back(stream.sent, stream.received) for stream in streams)
    return {
        "streams": len(streams),
        "chunks": len(delays),
        "first_token_ms": {"p50": percentile(first, 0.5), "p95": percentile(first, 0.95)},
        "chunk_ms": {"p50": percentile(delays, 0.5), "p99": percentile(delays, 0.99)},
        "held_back": held,
    }
