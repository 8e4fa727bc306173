"""One client connection: parses requests with httptools and plays the beats of each answer.

No task per request: beats without a wait are written at once, the others by ``call_later``.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Callable

import httptools

from tidegate.testing.beats import Beat, Beats
from tidegate.testing.seen import SeenRequest

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_BAD = (
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\n"
    b"content-length: 12\r\n\r\nBad request\n"
)


class ServerConnection(asyncio.Protocol):
    """``answer`` gives the beats of a request; ``closed`` is told when this connection ends."""

    def __init__(
        self,
        answer: Callable[[SeenRequest], Beats],
        opened: Callable[[ServerConnection], None],
        closed: Callable[[ServerConnection], None],
        finished: Callable[[SeenRequest], None],
    ) -> None:
        self._answer, self._opened, self._closed = answer, opened, closed
        self._finished = finished
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[SeenRequest, bool]] = deque()
        self._playing: SeenRequest | None = None
        self._beats: Beats | None = None
        self._keep_alive = True
        self._timer: asyncio.TimerHandle | None = None
        self._pending: Beat | None = None
        self._paused = self._held = False

    # -- transport ---------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._loop = asyncio.get_running_loop()
        self._opened(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError:
            self._transport.write(_BAD)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        now = time.monotonic()
        for seen in (self._playing, *(seen for seen, _ in self._waiting)):
            if seen is not None and seen.completed is None:
                seen.client_closed = now
                self._finished(seen)
        self._playing, self._beats = None, None
        self._waiting.clear()
        self._closed(self)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._beats is not None and self._timer is None and not self._held:
            self._step()

    def release(self) -> None:
        """Go on with an answer that is held; without one nothing happens."""
        held, self._held = self._held, False
        if held:
            self._step()

    def drop(self) -> None:
        """Close at once, from the server's side."""
        self._transport.abort()

    # -- httptools ---------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        self._path, self._headers, self._body = b"", {}, []  # type: ignore[var-annotated]

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._headers.get("expect", "").lower() == "100-continue":
            self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        seen = SeenRequest(
            index=-1,
            method=self._parser.get_method().decode(),
            path=self._path.decode("latin-1"),
            headers=self._headers,
            body=b"".join(self._body),
            arrived=time.monotonic(),
        )
        self._waiting.append((seen, self._parser.should_keep_alive()))
        if self._playing is None:
            self._next()

    # -- playing -----------------------------------------------------------------------------
    def _next(self) -> None:
        """Start the answer to the oldest request that waits (pipelined ones keep their order)."""
        if self._waiting and not self._transport.is_closing():
            self._playing, self._keep_alive = self._waiting.popleft()
            self._beats = self._answer(self._playing)
            self._step()

    def _step(self) -> None:
        """Play beats until one has to wait, the socket is full, or the answer is over."""
        self._timer = None
        seen, beats = self._playing, self._beats
        if seen is None or beats is None:
            return
        head = b""
        while not self._paused:
            if self._pending is not None:
                beat, self._pending = self._pending, None
            else:
                beat = next(beats, _OVER)
                if beat.wait > 0:
                    if head:
                        self._write(seen, head)
                    self._pending = beat
                    self._timer = self._loop.call_later(beat.wait, self._step)
                    return
            match beat.part:
                case "head":
                    # Held for the next beat: a plain answer leaves in one packet.
                    head = beat.data
                    seen.status = int(head[9:12])
                    continue
                case "token":
                    seen.tokens_sent += 1
                case "hold":
                    self._held = True
                    return
                case "close" | "reset" | "hang":
                    if head:
                        self._write(seen, head)
                    self._act(beat.part, seen)
                    return
            if head or beat.data:
                self._write(seen, head + beat.data)
                head = b""
            if beat.part == "end":
                self._end(seen)
                return
        if head:
            self._write(seen, head)

    def _write(self, seen: SeenRequest, data: bytes) -> None:
        seen.bytes_sent += len(data)
        self._transport.write(data)

    def _act(self, part: str, seen: SeenRequest) -> None:
        if part == "hang":
            return
        self._over(seen)
        if part == "close":
            self._transport.close()
        else:
            linger_zero(self._transport)
            self._transport.abort()

    def _over(self, seen: SeenRequest) -> None:
        seen.completed = time.monotonic()
        self._playing, self._beats = None, None
        self._finished(seen)

    def _end(self, seen: SeenRequest) -> None:
        self._over(seen)
        if self._keep_alive:
            self._next()
        else:
            self._transport.close()


_OVER = Beat(0.0, "end")


def linger_zero(transport: asyncio.BaseTransport) -> None:
    """Make the next close send RST instead of FIN (SO_LINGER with zero seconds)."""
    handle = os.dup(transport.get_extra_info("socket").fileno())
    with socket.socket(fileno=handle) as twin:
        twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
