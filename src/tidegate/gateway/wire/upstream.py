"""A lean HTTP/1.1 client on asyncio protocols: every wait is bounded and every fault has a name.

One ``Connection`` carries one exchange at a time and goes back to its ``Pool`` when the answer
was read to its end. Parsing is httptools (llhttp). The four clocks of an exchange:

    connect       until the socket (and TLS) is up
    first token   until ``exchange.first_token_seen()`` is called (streams only)
    idle          the longest silence between two reads of a stream
    total         a point in time given by the caller, shared by all attempts of a request

Redirects are never followed, nothing is decompressed (identity is asked for), cookies are not
kept: a provider that needs any of these is not an API.
"""

from __future__ import annotations

import asyncio
import collections
import re
import ssl
from typing import Any
from urllib.parse import urlsplit

import httptools
import msgspec

from tidegate.base import is_metadata

_READ_AHEAD = 256 * 1024
MAX_ANSWER = 64 << 20
MAX_HEAD = 64 * 1024
"""Bytes of headers, interim answers or chunk framing that an upstream may send without content."""
_IDLE_KEPT = 30.0
"""Seconds after which an unused connection is closed at the latest."""
_MOST_KEPT = 64


class UpstreamFault(Exception):
    """The upstream did not do its part. ``code`` is one of the codes in FAULTS; ``said`` is the
    provider's own code, where it told of an error inside its stream."""

    def __init__(self, code: str, words: str, said: str | None = None) -> None:
        super().__init__(words)
        self.code = code
        self.words = words
        self.said = said


FAULTS = {
    "upstream_unreachable": 502,
    "upstream_connect_timeout": 504,
    "upstream_first_token_timeout": 504,
    "upstream_idle_timeout": 504,
    "upstream_rate_timeout": 504,
    "upstream_answer_timeout": 504,
    "upstream_total_timeout": 504,
    "upstream_cut": 502,
    "upstream_protocol": 502,
    "upstream_too_large": 502,
}
"""Fault code to the HTTP status a client sees when nothing else could answer."""


_TOTAL = ("upstream_total_timeout", "the request's total time is used up")
_SHARE = ("upstream_answer_timeout", "no whole answer in half of the time that was left")


class UpstreamOrigin(msgspec.Struct, frozen=True):
    """Where requests of one base URL go. ``prefix`` is the path of the base URL, no end slash."""

    host: str
    port: int
    tls: bool
    prefix: str

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The base URL again, in one spelling."""
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.prefix}"


_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")
_PATH = re.compile(r"[!-~]*")


def parse_origin(base_url: str) -> UpstreamOrigin:
    """The origin of ``base_url``. Raises ValueError when it is not an http(s) URL with a host, or
    leads to where machines get their credentials (see ``is_metadata``)."""
    parts = urlsplit(base_url)
    if "@" in parts.netloc or parts.query or parts.fragment:  # not told: may be a key
        raise ValueError("a base URL must not hold credentials, a query or a fragment")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{base_url!r} is not an http or https URL")
    try:
        host = parts.hostname.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ValueError(f"{base_url!r} names an impossible host: {error}") from None
    # urlsplit drops line breaks and tabs; a space would end the target of the request line.
    if not (base_url.isprintable() and _HOST.fullmatch(host) and _PATH.fullmatch(parts.path)):
        raise ValueError(f"{base_url!r} holds a sign that no URL may hold")
    if is_metadata(host):
        raise ValueError(f"{base_url!r} is a link-local or metadata address")
    tls = parts.scheme == "https"
    return UpstreamOrigin(host, parts.port or (443 if tls else 80), tls, parts.path.rstrip("/"))


_RETRY_AFTER = re.compile(
    "[0-9]{1,6}|(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT"
)


class UpstreamReply(msgspec.Struct, frozen=True):
    """Status and headers of an answer; header names are lower-case bytes."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes = b""

    @property
    def retry_after(self) -> str | None:
        """The header ``retry-after`` where it is what it must be: whole seconds or an HTTP date."""
        value = self.headers.get(b"retry-after", b"").decode("latin-1")
        return value if _RETRY_AFTER.fullmatch(value) else None

    @property
    def is_event_stream(self) -> bool:
        return self.headers.get(b"content-type", b"").startswith(b"text/event-stream")


class PoolStatistics(msgspec.Struct, frozen=True):
    busy: int
    idle: int


class ConnectionPool:
    """Keep-alive connections of one worker to one origin."""

    def __init__(self, origin: UpstreamOrigin, *, tls: ssl.SSLContext | None = None) -> None:
        self.origin = origin
        self._tls = (tls or ssl.create_default_context()) if origin.tls else None
        self._idle: list[UpstreamConnection] = []
        self._busy = 0
        self._sweeper: asyncio.TimerHandle | None = None

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(self._busy, len(self._idle))

    def take(self) -> UpstreamConnection | None:
        """An idle connection that is still good, the youngest first; None when there is none."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                self._busy += 1
                return connection
        return None

    async def connect(self, timeout: float) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        self._busy += 1
        try:
            async with asyncio.timeout(timeout):
                _, connection = await loop.create_connection(
                    lambda: UpstreamConnection(self),
                    self.origin.host,
                    self.origin.port,
                    ssl=self._tls,
                    server_hostname=self.origin.host if self._tls else None,
                )
        except TimeoutError:
            self._busy -= 1
            raise UpstreamFault(
                "upstream_connect_timeout", f"no connection within {timeout:g} s"
            ) from None
        except (OSError, ssl.SSLError) as error:
            self._busy -= 1
            raise UpstreamFault("upstream_unreachable", str(error)) from None
        except BaseException:
            self._busy -= 1
            raise
        if is_metadata(connection.peer):  # the name was bound to it meanwhile; nothing was sent
            self._busy -= 1
            connection.close()
            raise UpstreamFault(
                "upstream_unreachable", "the name leads to a link-local or metadata address"
            )
        return connection

    def give_back(self, connection: UpstreamConnection) -> None:
        """The exchange is over; keep the connection when it may carry another."""
        self._busy -= 1
        if connection.usable and len(self._idle) < _MOST_KEPT:
            self._idle.append(connection)
            if self._sweeper is None:
                loop = asyncio.get_running_loop()
                self._sweeper = loop.call_later(_IDLE_KEPT / 2, self._sweep)
        else:
            connection.close()

    def _sweep(self) -> None:
        """Close connections that were idle for too long: one timer a pool, not one a connection."""
        loop = asyncio.get_running_loop()
        for connection in self._idle[:]:
            if loop.time() - connection.finished > _IDLE_KEPT / 2:
                connection.close()
        more = bool(self._idle)
        self._sweeper = loop.call_later(_IDLE_KEPT / 2, self._sweep) if more else None

    def forget(self, connection: UpstreamConnection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in self._idle[:]:
            connection.close()
        self._idle.clear()


class UpstreamConnection(asyncio.Protocol):
    """One socket, one exchange at a time: ``send``, then ``reply``, then ``read`` until b""."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._parser: Any = None
        self.finished = 0.0
        """Loop time at which it was last given back."""
        self._total: asyncio.TimerHandle | None = None
        self._quiet: asyncio.TimerHandle | None = None
        self._used = False
        self._clean = True
        self._draining: asyncio.TimerHandle | None = None
        self.was_reused = False
        """Whether the present exchange began on a connection that had carried another."""
        self._reset()

    def _reset(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._chunks: collections.deque[bytes] = collections.deque()
        self._buffered = 0
        self._received = 0
        self._whole = False
        self._streamed = False
        self._persistent = False
        self._paused = False
        self._complete = False
        self._fault: UpstreamFault | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._limit = 0.0
        self._limit_code = ""
        self._heard = 0.0
        self._content = False
        self._most = MAX_ANSWER
        self._contentless = 0

    # -- the exchange ---------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        return self._clean and self._transport is not None and not self._transport.is_closing()

    @property
    def peer(self) -> str:
        """The address at the other end; empty when there is none."""
        name = self._transport.get_extra_info("peername") if self._transport else None
        return str(name[0]) if isinstance(name, tuple) else ""

    @property
    def untouched(self) -> bool:
        """True while no byte of the answer has come: the request may be sent again elsewhere."""
        return self._received == 0

    def send(
        self,
        data: bytes,
        *,
        deadline: float,
        quiet: float | None,
        shared: bool = False,
        most: int = MAX_ANSWER,
    ) -> None:
        """Send a request. ``deadline`` is loop time; ``quiet`` is the first-token limit in seconds
        of a stream, None for a whole answer, which may have ``most`` bytes. ``shared``: the
        deadline is this attempt's share of the request's time, so that something is left for the
        next model."""
        self._reset()
        self._most = most
        self._clean = False
        self.was_reused, self._used = self._used, True
        self._parser = httptools.HttpResponseParser(self)
        self._total = self._loop.call_at(deadline, self._fail, *(_SHARE if shared else _TOTAL))
        if quiet is not None:
            self._streamed = True
            self._limit, self._limit_code = quiet, "upstream_first_token_timeout"
            self._heard = self._loop.time()
            self._quiet = self._loop.call_later(quiet, self._check_quiet)
        self._transport.write(data)

    def first_token_seen(self, idle: float) -> None:
        """The first content is there: from now on silence is measured against ``idle`` seconds."""
        self._limit, self._limit_code = idle, "upstream_idle_timeout"
        self._content = True
        self._heard = self._loop.time()
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = self._loop.call_later(idle, self._check_quiet)

    async def whole(self) -> UpstreamReply:
        """The complete answer. Raises UpstreamFault."""
        while not self._complete:
            await self._wait()
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        return UpstreamReply(self._parser.get_status_code(), self._headers, body)

    async def head(self) -> UpstreamReply:
        """Status and headers, as soon as they are there. Raises UpstreamFault."""
        while not self._whole:
            await self._wait()
        return UpstreamReply(self._parser.get_status_code(), self._headers)

    async def read(self) -> bytes:
        """What has come since the last read; b"" at the proper end. Raises UpstreamFault."""
        while not self._chunks:
            if self._complete:
                return b""
            await self._wait()
        data = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        if self._paused:
            self._paused = False
            self._heard = self._loop.time()
            self._transport.resume_reading()
        return data

    def finish(self, *, drain: bool = False) -> None:
        """End the exchange; an incomplete one closes the connection at once.

        With ``drain`` the content is all there and only the protocol's ending is awaited, for a
        second at most, so that the connection can be kept; nobody waits for that.
        """
        self._cancel_timers()
        if drain and not self._complete and self._fault is None and self._transport is not None:
            self._draining = self._loop.call_later(1.0, self._end)
        else:
            self._end()

    def _end(self) -> None:
        if self._draining is not None:
            self._draining.cancel()
            self._draining = None
        # One that still holds back its reading would never hear the next answer.
        if self._complete and self._persistent and not self._paused and self._transport is not None:
            self._clean = True
        self.finished = self._loop.time()
        self._chunks.clear()  # a connection is in a cycle with its parser, and may live on for long
        self._pool.give_back(self)

    # -- what the socket and the parser say -----------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._clean:  # bytes that nobody asked for: never trust the connection again
            self._clean = False
            self.close()
            return
        self._received += len(data)
        if self._content:  # pings before it do not stop the clock of the first token
            self._heard = self._loop.time()
        self._contentless += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("upstream_protocol", "the answer changes the protocol, which was not asked")
            return
        except httptools.HttpParserError as error:
            self._fail("upstream_protocol", f"the answer is not HTTP/1.1: {error}")
            return
        if self._contentless > MAX_HEAD:
            self._fail("upstream_too_large", f"more than {MAX_HEAD >> 10} KiB without content")
            return
        self._wake()

    def on_message_begin(self) -> None:
        if self._complete:  # the parser ends here and the connection with it: see data_received
            raise ValueError("bytes followed the end of the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._whole:  # trailers of a chunked body are not headers
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self._whole = True
        self._persistent = self._parser.should_keep_alive()  # true only while asked right here
        coding = self._headers.get(b"content-encoding", b"identity").strip().lower()
        transfer = self._headers.get(b"transfer-encoding", b"chunked").strip().lower()
        if coding not in (b"identity", b"") or transfer != b"chunked":
            name = (coding if transfer == b"chunked" else transfer).decode("latin-1")[:40]
            self._fail("upstream_protocol", f"the answer is encoded as {name!r}, not as asked")

    def on_body(self, data: bytes) -> None:
        self._contentless = 0
        self._chunks.append(data)
        self._buffered += len(data)
        if self._streamed:
            if self._buffered > _READ_AHEAD and not self._paused:
                self._paused = True
                self._transport.pause_reading()
        elif self._buffered > self._most:
            self._fail("upstream_too_large", f"the answer is larger than {self._most} bytes")

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200:  # an interim answer (100 Continue, 103): the real one follows
            self._whole = False
            self._headers = {}
            return
        if self._fault is not None:
            return
        self._complete = True
        if self._draining is not None:
            self._loop.call_soon(self._end_drain)

    def _end_drain(self) -> None:
        if self._draining is not None:
            self._end()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if not self._complete:
            until_close = (
                self._fault is None
                and self._whole
                and b"content-length" not in self._headers
                and b"chunked" not in self._headers.get(b"transfer-encoding", b"").lower()
            )
            if until_close and error is None:
                self._complete = True  # RFC 9112, 6.3: no length given, the end is the close
            elif self._fault is None:
                self._fault = UpstreamFault(
                    "upstream_cut", f"the connection broke ({error or 'closed by the upstream'})"
                )
        self._wake()
        self._end_drain()
        if self._clean:
            self._clean = False
            self._pool.forget(self)

    # -- clocks ---------------------------------------------------------------------------------

    def _check_quiet(self) -> None:
        silent = self._loop.time() - self._heard
        if self._paused:
            silent = 0.0  # the client is slow, not the upstream
        if silent >= self._limit - 0.001:
            what = "content" if self._limit_code.startswith("upstream_first") else "data"
            self._fail(self._limit_code, f"no {what} for {self._limit:g} s")
        else:
            self._quiet = self._loop.call_later(self._limit - silent, self._check_quiet)

    def close(self) -> None:
        self._clean = False
        self._cancel_timers()
        self._pool.forget(self)
        if self._transport is not None:
            self._transport.abort()

    def _cancel_timers(self) -> None:
        if self._total is not None:
            self._total.cancel()
            self._total = None
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None

    def _fail(self, code: str, words: str) -> None:
        if self._fault is None and not self._complete:
            self._fault = UpstreamFault(code, words)
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    def _wake(self) -> None:
        if (
            self._waiter is not None
            and not self._waiter.done()
            and (self._streamed or self._complete or self._fault is not None)
        ):
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        self._raise_fault()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if not self._chunks and not self._complete:
            self._raise_fault()

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault
