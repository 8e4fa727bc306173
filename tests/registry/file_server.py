"""A loopback file server that can break off, lie, refuse ranges, redirect and stall."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Script:
    """How the next answers go; ``requests`` and ``ranges`` are what came."""

    body: bytes = b""
    etag: str | None = '"v1"'
    ranges_work: bool = True
    wrong_offset: bool = False
    cut_after: list[int] = field(default_factory=list)
    """For each coming answer: bytes of the body after which the connection is cut."""
    statuses: list[int] = field(default_factory=list)
    """Statuses of coming answers, before the file is given."""
    extra_length: int = 0
    """What Content-Length says beyond the truth."""
    endless: bool = False
    """Send chunks without a length, for ever."""
    redirect: Callable[[str], str | None] = lambda path: None
    pause: float = 0.0
    requests: list[str] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(script: Script) -> Iterator[Script]:
    """Serve ``script`` on a free port of 127.0.0.1; ``script.url`` is its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self, script)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    with Quiet(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        script.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield script
        finally:
            server.shutdown()
            thread.join()


def answer(request: BaseHTTPRequestHandler, script: Script) -> None:
    asked = request.headers.get("Range")
    script.requests.append(request.path)
    script.ranges.append(asked)
    if (target := script.redirect(request.path)) is not None:
        head(request, 302, {"Location": target, "Content-Length": "0"})
        return
    if script.statuses and (status := script.statuses.pop(0)) != 200:
        head(request, status, {"Content-Length": "0"})
        return
    if script.endless:
        send_without_end(request)
        return
    start = 0
    same = request.headers.get("If-Range") == script.etag
    if asked and script.ranges_work and same:
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        if start >= len(script.body):
            head(request, 416, {"Content-Length": "0"})
            return
    send(request, script, start)


def send(request: BaseHTTPRequestHandler, script: Script, start: int) -> None:
    part = script.body[start:]
    headers = {"Content-Length": str(len(part) + script.extra_length)}
    if script.etag:
        headers["ETag"] = script.etag
    if start:
        claimed = start + 1 if script.wrong_offset else start
        total = len(script.body)
        headers["Content-Range"] = f"bytes {claimed}-{total - 1}/{total}"
    head(request, 206 if start else 200, headers)
    cut = script.cut_after.pop(0) if script.cut_after else None
    for at in range(0, len(part[:cut]), 65536):
        request.wfile.write(part[:cut][at : at + 65536])
        time.sleep(script.pause)
    if cut is not None or script.extra_length:
        request.close_connection = True


def send_without_end(request: BaseHTTPRequestHandler) -> None:
    head(request, 200, {"Transfer-Encoding": "chunked"})
    while True:
        request.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")


def head(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.end_headers()
