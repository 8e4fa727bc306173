"""A streaming upstream at a constant rate that stamps each chunk with the time of its sending.

Each content chunk carries ``@received,sent@``: nanoseconds of CLOCK_MONOTONIC, which all
processes of one machine share, when the request was complete here and when this chunk was
handed to the kernel. Run: ``python -m bench.gateway.upstream_stream --port 9999``.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import time
from typing import cast

import httptools
import uvloop

FIRST = 0.020
"""Seconds from the request to the first chunk."""
EVERY = 0.005
"""Seconds between chunks."""
CHUNKS = 30

_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
_EVENT = (
    'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1790000000,'
    '"model":"bench-stream","choices":[{"index":0,"delta":%s,"finish_reason":%s}],"usage":null}\n\n'
)
_LAST = (
    _EVENT % ("{}", '"stop"') + 'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk",'
    '"created":1790000000,"model":"bench-stream","choices":[],"usage":{"prompt_tokens":120,'
    '"completion_tokens":30,"total_tokens":150}}\n\ndata: [DONE]\n\n'
)


def framed(data: bytes) -> bytes:
    """One chunk of HTTP/1.1 chunked transfer coding."""
    return b"%x\r\n%s\r\n" % (len(data), data)


_TAIL = framed(_LAST.encode()) + b"0\r\n\r\n"


def content(received: int, sent: int, first: bool) -> bytes:
    """One event of content: the two stamps, between at-signs."""
    role = '"role":"assistant",' if first else ""
    return (_EVENT % (f'{{{role}"content":"@{received},{sent}@ "}}', "null")).encode()


class Upstream(asyncio.Protocol):
    """One connection; requests are answered one after the other."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._transport is not None:
                self._transport.close()

    def on_message_complete(self) -> None:
        received = time.monotonic_ns()
        if self._transport is not None:
            self._transport.write(_HEAD)
        start = self._loop.time() + FIRST
        self._timer = self._loop.call_at(start, self._send, 0, received, start)

    def _send(self, index: int, received: int, start: float) -> None:
        if self._transport is None:
            return
        if index == CHUNKS:
            self._transport.write(_TAIL)
            return
        self._transport.write(framed(content(received, time.monotonic_ns(), index == 0)))
        self._timer = self._loop.call_at(
            start + EVERY * (index + 1), self._send, index + 1, received, start
        )


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(Upstream, "127.0.0.1", port, backlog=512)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, required=True)
    uvloop.run(serve(arguments.parse_args().port))
