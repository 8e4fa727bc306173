"""The HTTP/1.1 door of a worker: an asyncio protocol over httptools (llhttp, strict).

Why not a ready server: the ones there are hop between threads for each request (more CPU than
all stages of the path together), or buffer a stream without bound when its reader is slow, or
tell late that the client has left. Here a request is parsed, handled and answered on one loop; a
slow reader stops its own stream (``send`` waits); a client that leaves cancels its own request.

What a connection may do is bounded: bytes of headers, bytes of body, time to send them, requests
that wait behind one another. TLS and HTTP/2 belong to the proxy in front.
"""

from __future__ import annotations

import asyncio
import collections
import http
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any

import httptools
import msgspec

MAX_HEADER_BYTES = 32 * 1024
MAX_WAITING = 8
HEADER_SECONDS = 10.0
BODY_SECONDS = 60.0
IDLE_SECONDS = 75.0
LINGER_SECONDS = 2.0
REST_SECONDS = 1.0
"""How long a connection that rests stays open once the worker drains: what its client is sending
in that moment is still answered, and told to come back on another connection."""
MAX_REFUSED = 256
STALL_SECONDS = 60.0
CHECK_SECONDS = 5.0
_HIGH_WATER = 64 * 1024

HeaderList = list[tuple[str, str]]
HttpHandler = Callable[["HttpRequest", "HttpResponse"], Awaitable[None]]


class ClientGone(Exception):
    """The client closed its connection while it was being answered."""


class HttpRequest:
    """One parsed request. Header names are lower-case; repeated headers are joined with commas."""

    __slots__ = ("_headers", "body", "keep_alive", "method", "path", "too_large", "version")

    def __init__(self) -> None:
        self.method = ""
        self.path = ""
        self.version = "1.1"
        self.keep_alive = True
        self.body = b""
        self.too_large = False
        """True when the body is larger than allowed; then it was not read."""
        self._headers: dict[bytes, bytes] = {}

    def header(self, name: bytes) -> str | None:
        """The value of the header ``name`` (lower-case bytes), None when it is not there."""
        value = self._headers.get(name)
        return None if value is None else value.decode("latin-1")


class ServerStatistics(msgspec.Struct, frozen=True):
    connections: int
    running: int
    refused: int = 0
    """Connections beyond the bound, since the start."""


class HttpServer:
    """All connections of one worker. ``handler`` answers one request; it must not raise."""

    def __init__(self, handler: HttpHandler, max_body: int, max_connections: int = 8192) -> None:
        self.handler = handler
        self.max_body = max_body
        self.max_connections = max_connections
        self.refused = 0
        self.leaving = 0
        """Connections that were refused and have not ended yet."""
        self.connections: set[HttpConnection] = set()
        self.draining = False
        self._empty = asyncio.Event()

    def statistics(self) -> ServerStatistics:
        running = sum(1 for connection in self.connections if connection.busy)
        return ServerStatistics(len(self.connections), running, self.refused)

    def load(self) -> float:
        """How full this worker is, as a share of the connections that it takes."""
        return len(self.connections) / self.max_connections

    def leave(self, connection: HttpConnection) -> None:
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    async def drain(self, seconds: float) -> None:
        """Finish what runs, take nothing new, close what rests; cut what takes longer: a request
        is cancelled with ``HttpResponse.cut`` set, so that its handler can still say so."""
        self.draining = True
        if not await self._emptied(min(REST_SECONDS, seconds)):
            for connection in tuple(self.connections):
                connection.close_when_idle()
            await self._emptied(seconds - REST_SECONDS)
        running = [task for one in tuple(self.connections) if (task := one.cut()) is not None]
        if running:
            await asyncio.wait(running, timeout=LINGER_SECONDS / 2)
        await self._emptied(LINGER_SECONDS / 2)
        running = [one._task for one in self.connections if one._task is not None]
        for connection in tuple(self.connections):
            connection.abort()
        if running:  # they are cancelled now: let them say so on their receipts
            await asyncio.wait(running, timeout=LINGER_SECONDS)

    async def _emptied(self, seconds: float) -> bool:
        """Whether every connection ended within ``seconds``."""
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                while self.connections:
                    self._empty.clear()
                    await self._empty.wait()
        except TimeoutError:
            return not self.connections
        return True


class HttpConnection(asyncio.Protocol):
    """One client connection: requests are answered one at a time, in their order."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._parser = httptools.HttpRequestParser(self)
        self._request: HttpRequest | None = None
        self._url = b""
        self._parts: list[bytes] = []
        self._size = 0
        self._header_bytes = 0
        self._in_headers = False
        self._waiting: collections.deque[HttpRequest] = collections.deque()
        self._task: asyncio.Task[None] | None = None
        self._response: HttpResponse | None = None
        self._writable: asyncio.Future[None] | None = None
        self._paused = False
        self._deaf = False
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._left = -1
        self._left_at = 0.0
        self._turned_away = False

    # -- the socket -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        if len(self._server.connections) >= self._server.max_connections:
            self._turn_away()
            return
        self._server.connections.add(self)
        self._due = self._loop.time() + HEADER_SECONDS
        self._timer = self._loop.call_later(HEADER_SECONDS, self._check_time)

    def connection_lost(self, error: Exception | None) -> None:
        if self._turned_away:
            self._server.leaving -= 1
        self._server.leave(self)
        self._transport = None
        self._deaf = True
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._writable is not None and not self._writable.done():
            self._writable.set_exception(ClientGone())
        if self._response is not None and self._task is not None:
            self._response.gone = True
            if not self._response.ended:
                self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        size = self._size
        if self._in_headers or self._request is None:
            self._header_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._reject(400, f"the request is not HTTP/1.1: {error}")
        if self._request is not None:
            if not self._in_headers and self._size == size:
                self._header_bytes += len(data)  # trailers, or what surrounds chunks
            if self._header_bytes > MAX_HEADER_BYTES and (self._in_headers or self._size == size):
                self._reject(431, f"the headers are larger than {MAX_HEADER_BYTES} bytes")

    def _stay(self, rest: bytes) -> None:
        """Ignore an ``Upgrade`` header (h2c, which some clients send by default), as RFC 9110, 7.8
        allows: the request is parsed again without it, and answered."""
        request = self._request
        if request is None or self._deaf:
            return
        line = f"{request.method} {self._url.decode('latin-1')} HTTP/{request.version}\r\n"
        kept = {n: v for n, v in request._headers.items() if n not in (b"upgrade", b"connection")}
        head = line.encode("latin-1") + b"".join(b"%b: %b\r\n" % item for item in kept.items())
        self._parser = httptools.HttpRequestParser(self)
        self._request = None
        self.data_received(head + b"\r\n" + rest)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._left = -1
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        elif self._task is None and self._waiting:
            self._begin(self._waiting.popleft())

    # -- the parser -----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._request = HttpRequest()
        self._url = b""
        self._parts = []
        self._size = 0
        self._in_headers = True
        self._due = self._loop.time() + HEADER_SECONDS

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        request = self._request
        if request is None or not self._in_headers:
            return  # a trailer: never merged with the headers (RFC 9110, 6.5.1)
        name = name.lower()
        headers = request._headers
        headers[name] = headers[name] + b"," + value if name in headers else value

    def on_headers_complete(self) -> None:
        request = self._request
        assert request is not None
        self._in_headers = False
        if self._deaf:
            return
        if self._header_bytes > MAX_HEADER_BYTES and self._headers_size(request) > MAX_HEADER_BYTES:
            self._reject(431, f"the headers are larger than {MAX_HEADER_BYTES} bytes")
            return
        self._header_bytes = 0
        self._due = self._loop.time() + BODY_SECONDS
        request.method = self._parser.get_method().decode("latin-1")
        path = self._url.partition(b"?")[0]
        if not path.startswith(b"/") and b"://" in path:  # absolute form (RFC 9112, 3.2.2)
            path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
        request.path = path.decode("latin-1")
        request.version = self._parser.get_http_version()
        request.keep_alive = request.version == "1.1" and self._parser.should_keep_alive()
        if b"host" not in request._headers and request.version == "1.1":
            self._reject(400, "the request has no host header")
            return
        if b"," in request._headers.get(b"host", b""):
            self._reject(400, "the request has more than one host header")
            return
        coding = request._headers.get(b"transfer-encoding")
        if coding is not None and (coding.lower() != b"chunked" or request.version != "1.1"):
            # Whoever stands in front may read any other coding in a way of its own.
            self._reject(400, "transfer-encoding is not chunked alone, in HTTP/1.1")
            return
        if request.method == "CONNECT":
            self._reject(400, "this is no proxy: CONNECT is not for it")
            return
        if b"upgrade" in request._headers and self._parser.should_upgrade():
            return  # it is read again: see _stay
        length = request._headers.get(b"content-length")
        if length is not None and length.isdigit() and int(length) > self._server.max_body:
            self._refuse_body(request)
        elif request._headers.get(b"expect", b"").lower() == b"100-continue" and not self.busy:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _headers_size(self, request: HttpRequest) -> int:
        lines = sum(len(name) + len(value) + 4 for name, value in request._headers.items())
        return len(self._url) + lines

    def on_body(self, data: bytes) -> None:
        request = self._request
        if request is None or request.too_large or self._deaf:
            return
        self._size += len(data)
        if self._size > self._server.max_body:
            self._refuse_body(request)
        else:
            self._parts.append(data)

    def on_message_complete(self) -> None:
        request = self._request
        if request is not None and b"upgrade" in request._headers and self._parser.should_upgrade():
            return
        self._request = None
        if request is None or request.too_large or self._deaf:
            return
        request.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = []
        self._take(request)

    def _refuse_body(self, request: HttpRequest) -> None:
        """The handler says why; after its answer the connection ends, the rest is not read."""
        request.too_large = True
        request.keep_alive = False
        self._parts = []
        self._deaf = True
        self._take(request)

    # -- requests -------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        return self._task is not None

    def _take(self, request: HttpRequest) -> None:
        if self._task is None and not self._paused:
            self._begin(request)
        elif len(self._waiting) < MAX_WAITING:
            self._waiting.append(request)
        else:
            self.abort()

    def _begin(self, request: HttpRequest) -> None:
        self._response = HttpResponse(self, request)
        self._task = self._loop.create_task(self._run(request, self._response))

    async def _run(self, request: HttpRequest, response: HttpResponse) -> None:
        try:
            await self._server.handler(request, response)
        except ClientGone:
            pass
        finally:
            self._end(request, response)

    def _end(self, request: HttpRequest, response: HttpResponse) -> None:
        self._task = self._response = None
        self._due = self._loop.time() + IDLE_SECONDS
        if self._transport is None:
            return
        if not response.ended:
            self.abort()  # a handler that was stopped half-way: never let that look like an end
        elif request.too_large:
            self._linger()
        elif not response.keep_alive or (
            self._server.draining and not self._waiting and self._request is None
        ):
            self._close()
        elif self._waiting and not self._paused:
            self._begin(self._waiting.popleft())

    def cut(self) -> asyncio.Task[None] | None:
        """Cancel what runs; its handler may still end the answer. The task, if there is one."""
        if self._task is not None and self._response is not None:
            self._response.cut = True
            self._task.cancel()
        else:
            self._close()
        return self._task

    def _turn_away(self) -> None:
        """Refuse a connection beyond the bound: answer without reading what it sends, and close."""
        self._server.refused += 1
        self._server.leaving += 1
        self._turned_away = True
        if self._server.leaving > MAX_REFUSED:
            self.abort()
            return
        self._answer(
            503,
            "connections_too_many",
            "this worker has as many connections as it takes",
            cure="retry after the time in retry-after, or raise gateway.max_connections",
        )

    def close_when_idle(self) -> None:
        if self._task is None and self._request is None and not self._waiting:
            self._close()

    def _close(self) -> None:
        """Close once everything is sent; a client that does not read it is not waited for long."""
        self._deaf = True
        if self._transport is not None:
            self._due = self._loop.time() + STALL_SECONDS
            self._transport.close()

    def _linger(self) -> None:
        """End a connection whose client may still be sending: closing with unread bytes would
        reset it before the answer was read."""
        self._deaf = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()
            self._loop.call_later(LINGER_SECONDS, self.abort)

    def abort(self) -> None:
        self._deaf = True
        if self._transport is not None:
            self._transport.abort()

    def _reject(self, status: int, words: str) -> None:
        """Answer what is no request at all, and end the connection."""
        cure = "send one well-formed HTTP/1.1 request"
        self._answer(status, "http_malformed", words, cure=cure)

    def _answer(self, status: int, code: str, words: str, *, cure: str) -> None:
        """Answer without a handler, and end the connection."""
        if self._deaf or self._transport is None:
            return
        self._deaf = True
        if self._response is not None:  # what came before it is still answered
            self._response.keep_alive = False
            return
        body = msgspec.json.encode(
            {
                "error": {
                    "message": words,
                    "type": "invalid_request_error" if status < 500 else "api_error",
                    "param": None,
                    "code": code,
                    "cure": cure,
                }
            }
        )
        headers = [("content-type", "application/json")]
        if status == 503:
            headers.append(("retry-after", "1"))
        head = _head(status, headers, len(body), False)
        self._transport.write(head + body)
        self._linger()

    def _check_time(self) -> None:
        """One timer per connection: too slow a request, or too long a silence, ends it."""
        now = self._loop.time()
        if self._transport is None:
            return
        if self._task is not None:
            self._due = max(self._due, now + CHECK_SECONDS)
            if self._writable is not None and self._stalled(now):
                self.abort()
                return
        if now >= self._due:
            if self._deaf:
                self.abort()
                return
            if self._request is not None:
                self._reject(408, "the request took too long to arrive")
            else:
                self._close()
        wait = min(self._due - now, CHECK_SECONDS)
        self._timer = self._loop.call_later(max(wait, CHECK_SECONDS / 5), self._check_time)

    def _stalled(self, now: float) -> bool:
        """Whether the client has read nothing of its stream for STALL_SECONDS."""
        left = self._transport.get_write_buffer_size()
        if left != self._left:
            self._left, self._left_at = left, now
        return now - self._left_at >= STALL_SECONDS

    # -- writing --------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    async def drained(self) -> None:
        """Return at once, or when a slow reader has caught up. Raises ClientGone."""
        if self._transport is None:
            raise ClientGone
        if not self._paused:
            return
        self._writable = self._loop.create_future()
        try:
            await self._writable
        finally:
            self._writable = None


class HttpResponse:
    """The answer to one request: ``whole``, or ``begin``, ``send`` ..., ``end``."""

    __slots__ = ("_chunked", "_connection", "_head", "_no_body", "begun", "cut", "ended", "gone",
                 "keep_alive")  # fmt: skip

    def __init__(self, connection: HttpConnection, request: HttpRequest) -> None:
        self._connection = connection
        self._chunked = request.version == "1.1"
        self._no_body = request.method == "HEAD"
        self._head = b""
        self.keep_alive = request.keep_alive
        self.begun = False
        self.ended = False
        self.gone = False
        """True when the client has closed its connection."""
        self.cut = False
        """True when the handler is cancelled because this worker must end."""

    def whole(self, status: int, headers: HeaderList, body: bytes) -> None:
        """Send a complete answer."""
        self.begun = self.ended = True
        if self._connection._server.draining:
            self.keep_alive = False
        head = _head(status, headers, len(body), self.keep_alive)
        self._connection.write(head if self._no_body else head + body)

    def begin(self, headers: HeaderList) -> None:
        """Start a stream with status 200; the head leaves together with the first bytes."""
        self.begun = True
        if not self._chunked or self._connection._server.draining:
            self.keep_alive = False
        self._head = _head(200, headers, None if self._chunked else -1, self.keep_alive)

    async def send(self, data: bytes) -> None:
        """Send bytes of the stream now; wait while the reader is slow. Raises ClientGone."""
        if self.gone:
            raise ClientGone
        if not data:
            return  # an empty chunk would be the end of the body
        if self._chunked:
            data = b"%b%x\r\n%b\r\n" % (self._head, len(data), data)
        elif self._head:
            data = self._head + data
        self._head = b""
        self._connection.write(data)
        await self._connection.drained()

    def end(self, data: bytes = b"") -> None:
        """Send the last bytes and end the stream properly."""
        if data and self._chunked:
            data = b"%b%x\r\n%b\r\n0\r\n\r\n" % (self._head, len(data), data)
        elif self._chunked:
            data = self._head + b"0\r\n\r\n"
        else:
            data = self._head + data
        self._head = b""
        self.ended = True
        self._connection.write(data)


_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    for status in http.HTTPStatus
}
_date: tuple[int, bytes] = (0, b"")


def _date_line() -> bytes:
    """The date header (RFC 9110, 6.6.1), formatted once a second."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = now, f"date: {formatdate(now, usegmt=True)}\r\n".encode()
    return _date[1]


def _head(status: int, headers: HeaderList, length: int | None, keep_alive: bool) -> bytes:
    """Status line and headers. ``length`` None: chunked; -1: the end is the close."""
    text = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if length is None:
        text += "transfer-encoding: chunked\r\n"
    elif length >= 0:
        text += f"content-length: {length}\r\n"
    text += "\r\n" if keep_alive else "connection: close\r\n\r\n"
    line = _LINES.get(status) or f"HTTP/1.1 {status} Unknown\r\n".encode()
    return line + _date_line() + text.encode("latin-1", "replace")
