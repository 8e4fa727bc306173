"""A beat is one piece of an answer and the wait before it; an answer is an iterator of beats.

Dialects make beats, faults rewrite them, the connection plays them. So every fault works on every
dialect, streamed or not, and the bytes on the wire are exactly those of the beats.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import msgspec

BeatPart = Literal[
    "head",  # status line and headers
    "body",  # the whole body of an answer that is not streamed
    "open",  # events before the first token
    "token",  # one token's event
    "finish",  # events that carry the finish reason
    "usage",  # the event that carries usage
    "done",  # the dialect's own ending ([DONE], message_stop)
    "end",  # the end of the HTTP body
    "close",  # act: close the connection in order (FIN)
    "reset",  # act: break the connection (RST)
    "hang",  # act: send nothing more and keep the connection open
    "hold",  # act: send nothing until the connection is released
]


class Beat(NamedTuple):
    """After ``wait`` seconds, send ``data`` or do what ``part`` says."""

    wait: float
    part: BeatPart
    data: bytes = b""


Beats = Iterator[Beat]

REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    529: "Overloaded",
}

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
STREAM_END = Beat(0.0, "end", b"0\r\n\r\n")

encode = msgspec.json.encode


def chunk(data: bytes) -> bytes:
    """``data`` as one chunk of a chunked body (RFC 9112, 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def plain(
    status: int, body: bytes, wait: float = 0.0, headers: tuple[tuple[str, str], ...] = ()
) -> Beats:
    """An answer with a content length: a head beat and a body beat."""
    kind = "" if any(n.lower() == "content-type" for n, _ in headers) else "application/json"
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}"]
    lines += [f"content-type: {kind}"] if kind else []
    lines += [f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    yield Beat(wait, "head", ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    yield Beat(0.0, "body", body)
    yield Beat(0.0, "end")
