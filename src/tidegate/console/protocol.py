"""uvicorn's HTTP protocol, with the bounds on headers and idle connections that it lacks.

Until the headers of a request are read, no token protects the server.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES = 32 * 1024
MAX_CONNECTIONS = 256
HEADER_SECONDS = 10.0


class BoundedProtocol(HttpToolsProtocol):
    """One connection to the operator's door."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._in_headers = True
        self._contentless = 0
        """Bytes since the last of a body: headers, trailers, what surrounds chunks."""
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._late = self.loop.call_later(HEADER_SECONDS, self._too_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return  # refused: the rest is not read
        self._contentless += len(data)
        super().data_received(data)
        if self._contentless > MAX_HEADER_BYTES and not self.transport.is_closing():
            self.send_400_response("The headers are too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = True
        if self._late is None:
            self._late = self.loop.call_later(HEADER_SECONDS, self._too_late)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_headers:  # a trailer is never merged with the headers (RFC 9110, 6.5.1)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_time()
        hosts = sum(1 for name, _ in self.headers if name == b"host")
        codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEADER_BYTES or hosts > 1 or codings not in ([], [b"chunked"]):
            raise ValueError("not a request for this door")  # the parser ends, 400 is answered
        self._in_headers, self._contentless = False, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._contentless = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._contentless = 0
        super().on_message_complete()

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        self._late = None
        self.transport.abort()
