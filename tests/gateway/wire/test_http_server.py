"""The door under attack: every connection is bounded, one request sent is one request seen."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.gateway.loops import run, soon, until
from tidegate.gateway.wire import http_server
from tidegate.gateway.wire.http_server import (
    ClientGone,
    HttpConnection,
    HttpRequest,
    HttpResponse,
    HttpServer,
    ServerStatistics,
)

MAX_BODY = 1000
JSON = [("content-type", "application/json")]
GET = b"GET /good HTTP/1.1\r\nhost: t\r\n\r\n"


class Door:
    """A running server. ``seen`` are the requests its handlers were given, ``ended`` how each
    handler ended: ``done``, ``gone`` or ``cancelled``."""

    def __init__(self) -> None:
        self.port = 0
        self.seen: list[HttpRequest] = []
        self.ended: list[str] = []
        self.sent = 0
        self.go = asyncio.Event()
        self.server = HttpServer(self.handle, MAX_BODY)
        self.clients: list[Client] = []

    async def handle(self, request: HttpRequest, out: HttpResponse) -> None:
        self.seen.append(request)
        try:
            await HANDLERS.get(request.path, echo)(self, request, out)
        except ClientGone:
            self.ended.append("gone")
            raise
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("done")

    async def open(self) -> Client:
        pair = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
        self.clients.append(Client(*pair))
        return self.clients[-1]


class Client:
    """A client of raw bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of the next answer with a length or in chunks."""
        status, headers = await self.head()
        if headers.get(b"transfer-encoding") == b"chunked":
            return status, await self.chunks()
        length = int(headers.get(b"content-length", b"0"))
        return status, await soon(self.reader.readexactly(length))

    async def head(self) -> tuple[int, dict[bytes, bytes]]:
        head = await soon(self.reader.readuntil(b"\r\n\r\n"))
        lines = head[:-4].split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines[1:])
        return int(lines[0].split(b" ")[1]), headers

    async def chunks(self) -> bytes:
        parts = []
        while True:
            size = int(await soon(self.reader.readuntil(b"\r\n")), 16)
            data = await soon(self.reader.readexactly(size + 2))
            if size == 0:
                return b"".join(parts)
            parts.append(data[:-2])

    async def rest(self) -> bytes:
        """Everything until the server closes; a reset counts as the end."""
        try:
            return await soon(self.reader.read())
        except ConnectionError:
            return b""

    def reset(self) -> None:
        handle = self.writer.get_extra_info("socket")
        linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


async def echo(door: Door, request: HttpRequest, out: HttpResponse) -> None:
    seen = {
        "method": request.method,
        "path": request.path,
        "body": request.body.decode("latin-1"),
        "too_large": request.too_large,
    }
    out.whole(413 if request.too_large else 200, JSON, json.dumps(seen).encode())


async def wait(door: Door, request: HttpRequest, out: HttpResponse) -> None:
    await door.go.wait()
    await echo(door, request, out)


async def sleep(door: Door, request: HttpRequest, out: HttpResponse) -> None:
    await asyncio.sleep(0.05)
    await echo(door, request, out)


async def stream(door: Door, request: HttpRequest, out: HttpResponse) -> None:
    out.begin(JSON)
    await out.send(b"one ")
    await out.send(b"")
    await door.go.wait()
    await out.send(b"two ")
    out.end(b"three")


async def flood(door: Door, request: HttpRequest, out: HttpResponse) -> None:
    out.begin(JSON)
    for _ in range(4096):
        await out.send(b"x" * 16384)
        door.sent += 16384
    out.end()


async def nothing(door: Door, request: HttpRequest, out: HttpResponse) -> None:
    """Ends without an answer."""


async def half(door: Door, request: HttpRequest, out: HttpResponse) -> None:
    out.begin(JSON)
    await out.send(b"half")


async def large(door: Door, request: HttpRequest, out: HttpResponse) -> None:
    door.sent += 1 << 18
    out.whole(200, JSON, b"y" * (1 << 18))


HANDLERS: dict[str, Callable[[Door, HttpRequest, HttpResponse], Awaitable[None]]] = {
    "/wait": wait,
    "/sleep": sleep,
    "/stream": stream,
    "/flood": flood,
    "/nothing": nothing,
    "/half": half,
    "/large": large,
}


@asynccontextmanager
async def served() -> AsyncIterator[Door]:
    """A door on loopback; at the end nothing of it may be left."""
    door = Door()
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: HttpConnection(door.server), "127.0.0.1", 0)
    door.port = listener.sockets[0].getsockname()[1]
    try:
        yield door
    finally:
        listener.close()
        for client in door.clients:
            client.writer.transport.abort()
        await door.server.drain(0)
        refused = door.server.refused
        await until(lambda: door.server.statistics() == ServerStatistics(0, 0, refused), 1)


def post(path: bytes = b"/good", body: bytes = b"{}", *headers: bytes) -> bytes:
    lines = [b"POST " + path + b" HTTP/1.1", b"host: t", *headers]
    return b"\r\n".join([*lines, b"content-length: %d" % len(body), b"", body])


# -- requests that are well -----------------------------------------------------------------------


def test_a_connection_carries_many_requests_in_their_order() -> None:
    async def main() -> None:
        async with served() as door:
            client = await door.open()
            client.send(post(b"/sleep", b"1") + post(b"/good", b"2") + post(b"/sleep", b"3"))
            bodies = [json.loads((await client.answer())[1])["body"] for _ in range(3)]
            assert bodies == ["1", "2", "3"]
            client.send(post(b"/good", b"4"))
            assert json.loads((await client.answer())[1])["body"] == "4"
            assert door.server.statistics() == ServerStatistics(connections=1, running=0)

    run(main())


@pytest.mark.parametrize("size", [1, 3, 17])
def test_a_request_may_come_in_any_pieces(size: int) -> None:
    async def main() -> None:
        data = post(b"/a?q=1", b"hello") + GET
        async with served() as door:
            client = await door.open()
            for start in range(0, len(data), size):
                client.send(data[start : start + size])
                await asyncio.sleep(0)
            seen = json.loads((await client.answer())[1])
            assert (seen["method"], seen["path"], seen["body"]) == ("POST", "/a", "hello")
            assert json.loads((await client.answer())[1])["path"] == "/good"

    run(main())


def test_a_chunked_body_is_put_together_and_its_trailers_are_no_headers() -> None:
    async def main() -> None:
        async with served() as door:
            client = await door.open()
            client.send(
                b"POST /good HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n"
                b"2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nauthorization: Bearer sneaky\r\n\r\n" + GET
            )
            assert json.loads((await client.answer())[1])["body"] == "hello"
            assert (await client.answer())[0] == 200
            assert door.seen[0].header(b"authorization") is None

    run(main())


def test_expect_100_continue_is_answered_first() -> None:
    async def main() -> None:
        async with served() as door:
            client = await door.open()
            client.send(
                b"POST /good HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 2\r\n"
                b"\r\n"
            )
            assert (await client.head())[0] == 100
            client.send(b"hi")
            assert json.loads((await client.answer())[1])["body"] == "hi"

    run(main())


def test_head_has_the_headers_of_get_and_no_body() -> None:
    async def main() -> None:
        async with served() as door:
            client = await door.open()
            client.send(b"HEAD /good HTTP/1.1\r\nhost: t\r\n\r\n")
            status, headers = await client.head()
            assert status == 200
            assert int(headers[b"content-length"]) > 0
            client.send(GET)
            assert (await client.answer())[0] == 200

    run(main())


def test_http_1_0_is_answered_and_closed() -> None:
    async def main() -> None:
        async with served() as door:
            client = await door.open()
            client.send(b"GET /good HTTP/1.0\r\n\r\n")
            assert (await client.answer())[0] == 200
            assert await client.rest() == b""
            client = await door.open()
            door.go.set()
            client.send(b"GET /stream HTTP/1.0\r\n\r\n")
            _, headers = await client.head()
            assert b"transfer-encoding" not in headers
            assert await client.rest() == b"one two three"

    run(main())


def test_connection_close_is_kept() -> None:
    async def main() -> None:
        async with served() as door:
            client = await door.open()
            client.send(b"GET /good HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n" + GET)
            _, headers = await client.head()
            assert headers[b"connection"] == b"close"
            await client.rest()
            assert len(door.seen) == 1

    run(main())


def test_a_stream_leaves_chunk_by_chunk() -> None:
    async def main() -> None:
        async with served() as door:
            client = await door.open()
            client.send(b"GET /stream HTTP/1.1\r\nhost: t\r\n\r\n" + GET)
            status, headers = await client.head()
            assert (status, headers[b"transfer-encoding"]) == (200, b"chunked")
            assert await soon(client.reader.readexactly(9)) == b"4\r\none \r\n"
            door.go.set()
            assert await client.chunks() == b"two three"
            assert (await client.answer())[0] == 200

    run(main())


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"http://t/v1/models?x=1", "/v1/models"),
        (b"http://t", "/"),
        (b"/v1/models?x=http://t/other", "/v1/models"),
        (b"/a//b", "/a//b"),
        (b"*", "*"),
    ],
)
def test_the_path_of_a_target(target: bytes, path: str) -> None:
    async def main() -> None:
        async with served() as door:
            client = await door.open()
            client.send(b"OPTIONS " + target + b" HTTP/1.1\r\nhost: t\r\n\r\n")
            assert json.loads((await client.answer())[1])["path"] == path

    run(main())


@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
def test_an_upgrade_is_ignored_and_the_request_answered(method: bytes, protocol: bytes) -> None:
    async def main() -> None:
        async with served() as door:
            client = await door.open()
            client.send(
                method + b" /good HTTP/1.1\r\nhost: t\r\nupgrade: " + protocol
                + b"\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAEAAEAAAAIAAAABAAMA"
                b"\r\ncontent-length: 2\r\n\r\nhi" + post(body=b"next")
            )  # fmt: skip
            assert json.loads((await client.answer())[1])["body"] == "hi"
            assert json.loads((await client.answer())[1])["body"] == "next"
            assert [r.method.encode() for r in door.seen] == [method, b"POST"]

    run(main())


def test_the_door_is_no_proxy() -> None:
    async def main() -> None:
        async with served() as door:
            client = await door.open()
            client.send(b"CONNECT a:443 HTTP/1.1\r\nhost: a\r\n\r\n" + GET)
            assert (await client.answer())[0] == 400
            assert await client.rest() == b""
            assert door.seen == []

    run(main())


# -- what is no request ---------------------------------------------------------------------------

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: t\r\n\r\n"


AMBIGUOUS = [
    b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n"
    b"0\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n"
    b"0\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\ncontent-length: 37\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 0, 37\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: +37\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 0x25\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 99999999999999999999999\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: xchunked\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked, identity\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding:\x0bchunked\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\n transfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\nx: y\r\n folded: z\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\nhost: t\ncontent-length: 0\n\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 0\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\nx: a\x00b\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\nx: a\rb: c\r\n\r\n" + SMUGGLED,
    b"POST /\x00 HTTP/1.1\r\nhost: t\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\n\r\n\x00" + SMUGGLED,
    b"POST / HTTP/1.1\r\nx: no host\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n"
    b"ffffffffffffffffff\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n0\n\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\nhost: u\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t, u\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n"
    b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: identity\r\n"
    b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.0\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\ncontent-length: 0\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n0;a\nb\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhix0\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length:\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nhost: t\r\ncontent length: 37\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/2.0\r\nhost: t\r\n\r\n" + SMUGGLED,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + SMUGGLED,
]


@pytest.mark.parametrize("data", AMBIGUOUS, ids=range(len(AMBIGUOUS)))
def test_nothing_is_smuggled(data: bytes) -> None:
    """What two programs may read differently is refused: never a second request seen."""

    async def main() -> None:
        async with served() as door:
            client = await door.open()
            client.send(data)
            answer = await client.rest()
            assert "/smuggled" not in [request.path for request in door.seen], answer
            assert len(door.seen) <= 1
            assert len(re.findall(rb"HTTP/1.1 \d", answer)) == 1, "one request, one answer"
            if not door.seen:
                assert answer.startswith(b"HTTP/1.1 400 ")
                error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
                assert error["code"] == "http_malformed"
                assert error["cure"]

    run(main())


def test_after_a_refusal_nothing_of_the_same_bytes_is_handled() -> None:
    async def main() -> None:
        async with served() as door:
            client = await door.open()
            client.send(b"GET / HTTP/1.1\r\nno-host: t\r\n\r\n" + post(body=b"x" * (MAX_BODY + 1)))
            answer = await client.rest()
            assert len(re.findall(rb"HTTP/1.1 \d", answer)) == 1
            assert door.seen == []

    run(main())


def test_a_path_cannot_inject_a_header() -> None:
    async def main() -> None:
        async with served() as door:
            client = await door.open()
            client.send(b"GET /a%0d%0ax-injected:%201 HTTP/1.1\r\nhost: t\r\n\r\n")
            _, headers = await client.head()
            assert b"x-injected" not in headers
            client = await door.open()
            client.send(b"GET /a\rx-injected: 1 HTTP/1.1\r\nhost: t\r\n\r\n")
            assert b"x-injected" not in await client.rest()

    run(main())


def test_what_came_before_garbage_is_answered() -> None:
    async def main() -> None:
        async with served() as door:
            client = await door.open()
            client.send(post(b"/sleep", b"1") + b"garbage\r\n\r\n" + GET)
            answer = await client.rest()
            assert answer.count(b"HTTP/1.1 200 ") == 1
            assert b"connection: close" in answer
            assert len(door.seen) == 1

    run(main())


# -- bounds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [1, 50])
@pytest.mark.parametrize(
    "start",
    [
        b"GET /" + b"a" * 40_000,
        b"GET / HTTP/1.1\r\nhost: t\r\nx: " + b"a" * 40_000,
        b"GET / HTTP/1.1\r\nhost: t\r\n" + b"".join(b"x-%d: 1\r\n" % n for n in range(5000)),
        b"GET / HTTP/1.1\r\nhost: t\r\nx: " + b"a" * 40_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: " + b"a" * 70_000,
        b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"a" * 70_000,
    ],
    ids=["target", "one header", "many headers", "complete", "trailers", "chunk extension"],
)
def test_headers_are_bounded(start: bytes, pieces: int) -> None:
    async def main() -> None:
        async with served() as door:
            client = await door.open()
            step = len(start) // pieces + 1
            for at in range(0, len(start), step):
                client.send(start[at : at + step])
                await asyncio.sleep(0)
            status, body = await client.answer()
            assert (status, json.loads(body)["error"]["code"]) == (431, "http_malformed")
            assert await client.rest() == b""
            assert door.seen == []

    run(main())


def test_a_large_body_after_small_headers_does_not_count_as_headers() -> None:
    async def main() -> None:
        async with served() as door:
            door.server.max_body = 1 << 20
            client = await door.open()
            for size in (100_000, 0, 40_000):
                client.send(post(body=b"x" * size) + GET)
                assert len(json.loads((await client.answer())[1])["body"]) == size
                assert (await client.answer())[0] == 200

    run(main())


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_that_is_too_large_is_refused_readably_while_it_is_sent(chunked: bool) -> None:
    async def main() -> None:
        async with served() as door:
            client = await door.open()
            framing = b"transfer-encoding: chunked" if chunked else b"content-length: 9000000"
            client.send(b"POST /good HTTP/1.1\r\nhost: t\r\n" + framing + b"\r\n\r\n")
            block = b"x" * 50_000
            for _ in range(20):
                client.send(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
                await asyncio.sleep(0)
            status, headers = await client.head()
            assert (status, headers[b"connection"]) == (413, b"close")
            body = json.loads(await client.reader.readexactly(int(headers[b"content-length"])))
            assert body["too_large"]
            assert body["body"] == ""
            assert await client.rest() == b""
            assert len(door.seen) == 1
            client.writer.close()
            await until(lambda: not door.server.connections)

    run(main())


def test_a_client_that_never_stops_sending_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "LINGER_SECONDS", 0.1)

    async def main() -> None:
        async with served() as door:
            client = await door.open()
            client.send(b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 9000000\r\n\r\n")
            assert (await client.answer())[0] == 413
            await until(lambda: not door.server.connections)

    run(main())


def test_a_body_of_exactly_the_limit_is_taken() -> None:
    async def main() -> None:
        async with served() as door:
            client = await door.open()
            client.send(post(body=b"x" * MAX_BODY))
            assert (await client.answer())[0] == 200
            client.send(post(body=b"x" * (MAX_BODY + 1)))
            assert (await client.answer())[0] == 413

    run(main())


def quick_clocks(monkeypatch: pytest.MonkeyPatch, **limits: float) -> None:
    monkeypatch.setattr(http_server, "CHECK_SECONDS", 0.05)
    for name, seconds in limits.items():
        monkeypatch.setattr(http_server, name, seconds)


@pytest.mark.parametrize("before", [b"", GET], ids=["first", "after another"])
def test_slow_headers_are_cut(monkeypatch: pytest.MonkeyPatch, before: bytes) -> None:
    quick_clocks(monkeypatch, HEADER_SECONDS=0.2)

    async def main() -> None:
        async with served() as door:
            client = await door.open()
            if before:
                client.send(before)
                assert (await client.answer())[0] == 200
            started = asyncio.get_running_loop().time()
            client.send(b"GET / HTTP/1.1\r\n")
            for _ in range(3):
                await asyncio.sleep(0.05)
                client.send(b"x: drip\r\n")
            assert (await client.answer())[0] == 408
            assert asyncio.get_running_loop().time() - started < 2
            assert await client.rest() == b""

    run(main())


def test_a_slow_body_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_clocks(monkeypatch, HEADER_SECONDS=0.2, BODY_SECONDS=0.2)

    async def main() -> None:
        async with served() as door:
            client = await door.open()
            client.send(b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\nx")
            assert (await client.answer())[0] == 408
            assert door.seen == []

    run(main())


def test_silence_ends_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_clocks(monkeypatch, HEADER_SECONDS=0.2, IDLE_SECONDS=0.1)

    async def main() -> None:
        async with served() as door:
            mute, used = await door.open(), await door.open()
            used.send(GET)
            assert (await used.answer())[0] == 200
            assert await used.rest() == await mute.rest() == b""
            assert not door.server.connections

    run(main())


def test_an_answer_that_takes_long_is_not_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_clocks(monkeypatch, HEADER_SECONDS=0.05, IDLE_SECONDS=0.05, BODY_SECONDS=0.05)

    async def main() -> None:
        async with served() as door:
            client = await door.open()
            client.send(b"GET /wait HTTP/1.1\r\nhost: t\r\n\r\n")
            await asyncio.sleep(0.5)
            door.go.set()
            assert (await client.answer())[0] == 200

    run(main())


def test_a_slow_reader_holds_its_own_stream_and_nobody_else() -> None:
    async def main() -> None:
        async with served() as door:
            slow = await door.open()
            slow.writer.transport.pause_reading()
            slow.send(b"GET /flood HTTP/1.1\r\nhost: t\r\n\r\n")
            await until(lambda: any(one._paused for one in door.server.connections))
            await asyncio.sleep(0.1)
            held = door.sent
            assert held < 16 << 20, "the stream must wait for its reader"
            other = await door.open()
            other.send(GET)
            assert (await other.answer())[0] == 200
            await asyncio.sleep(0.1)
            assert door.sent == held
            slow.writer.transport.resume_reading()
            assert (await slow.head())[0] == 200
            assert len(await slow.chunks()) == 4096 * 16384

    run(main())


def test_a_reader_that_stopped_for_good_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_clocks(monkeypatch, STALL_SECONDS=0.2, HEADER_SECONDS=0.1)

    async def main() -> None:
        async with served() as door:
            stuck = await door.open()
            stuck.writer.transport.pause_reading()
            stuck.send(b"GET /flood HTTP/1.1\r\nhost: t\r\n\r\n")
            await until(lambda: door.ended == ["cancelled"])
            assert not door.server.connections
            stuck.writer.close()

    run(main())


def test_an_answer_that_is_never_read_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_clocks(monkeypatch, STALL_SECONDS=0.2, IDLE_SECONDS=0.2, HEADER_SECONDS=0.1)

    async def main() -> None:
        async with served() as door:
            stuck = await door.open()
            stuck.writer.transport.pause_reading()
            # More than the buffers of the kernel hold
            door.server.handler = lambda request, out: big(out)
            stuck.send(GET)
            await until(lambda: any(one._paused for one in door.server.connections))
            await until(lambda: not door.server.connections)
            stuck.writer.close()

    run(main())


async def big(out: HttpResponse) -> None:
    out.whole(200, JSON, b"z" * (12 << 20))


def test_a_pipeline_whose_answers_are_not_read_is_not_answered_further() -> None:
    async def main() -> None:
        async with served() as door:
            client = await door.open()
            client.writer.transport.pause_reading()
            for _ in range(400):
                if client.writer.transport.is_closing():
                    break
                client.send(b"GET /large HTTP/1.1\r\nhost: t\r\n\r\n")
                await asyncio.sleep(0.002)
            assert door.sent < 16 << 20, "answers must not pile up in memory"
            client.writer.transport.abort()

    run(main())


def test_a_pipeline_is_answered_whole_when_its_reader_comes_back() -> None:
    async def main() -> None:
        async with served() as door:
            client = await door.open()
            client.writer.transport.pause_reading()
            # Larger than the buffers of the kernel: the server must hold some back.
            door.server.handler = lambda request, out: big(out)
            client.send(GET * 4)
            await until(lambda: any(one._paused for one in door.server.connections))
            await asyncio.sleep(0.05)
            client.writer.transport.resume_reading()
            for _ in range(4):
                assert len((await client.answer())[1]) == 12 << 20

    run(main())


def test_too_many_waiting_requests_end_the_connection() -> None:
    async def main() -> None:
        async with served() as door:
            client = await door.open()
            client.send(b"GET /wait HTTP/1.1\r\nhost: t\r\n\r\n" + GET * 50)
            await client.rest()
            await until(lambda: door.ended == ["cancelled"])
            assert len(door.seen) == 1

    run(main())


# -- who leaves -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("path", [b"/wait", b"/stream", b"/flood"])
def test_a_client_that_leaves_cancels_its_request_at_once(path: bytes, how: str) -> None:
    async def main() -> None:
        async with served() as door:
            client = await door.open()
            if path == b"/flood":
                client.writer.transport.pause_reading()
            client.send(b"GET " + path + b" HTTP/1.1\r\nhost: t\r\n\r\n" + GET)
            await until(lambda: door.seen)
            if path == b"/stream":
                await client.head()
            if path == b"/flood":
                await until(lambda: any(one._paused for one in door.server.connections))
            if how == "close":
                client.writer.transport.abort()
            else:
                client.reset()
            await until(lambda: door.ended, 1)
            assert door.ended == ["cancelled"]
            assert not door.server.connections
            assert len(door.seen) == 1, "what waited behind it is not begun"

    run(main())


@pytest.mark.parametrize(("path", "start"), [(b"/nothing", b""), (b"/half", b"HTTP/1.1 200")])
def test_a_handler_that_does_not_end_its_answer_never_looks_like_an_end(
    path: bytes, start: bytes
) -> None:
    async def main() -> None:
        async with served() as door:
            client = await door.open()
            client.send(b"GET " + path + b" HTTP/1.1\r\nhost: t\r\n\r\n" + GET)
            answer = await client.rest()
            assert not answer.endswith(b"0\r\n\r\n")
            assert answer[:12] in (start, b"")
            assert len(door.seen) == 1

    run(main())


# -- drain ----------------------------------------------------------------------------------------


def test_drain_finishes_what_runs_and_closes_what_rests() -> None:
    async def main() -> None:
        async with served() as door:
            idle, waiting, streaming = await door.open(), await door.open(), await door.open()
            idle.send(GET)
            assert (await idle.answer())[0] == 200
            waiting.send(b"GET /wait HTTP/1.1\r\nhost: t\r\n\r\n")
            streaming.send(b"GET /stream HTTP/1.1\r\nhost: t\r\n\r\n")
            await until(lambda: len(door.seen) == 3)
            drained = asyncio.create_task(door.server.drain(5))
            assert await idle.rest() == b""
            assert not drained.done()
            door.go.set()
            status, headers = await waiting.head()
            assert (status, headers[b"connection"]) == (200, b"close")
            await streaming.head()
            assert await streaming.chunks() == b"one two three"
            assert await streaming.rest() == b""
            await soon(drained, 1)

    run(main())


def test_drain_finishes_a_request_that_is_still_being_sent() -> None:
    async def main() -> None:
        async with served() as door:
            client = await door.open()
            client.send(post(body=b"0123456789")[:-5])
            await until(lambda: any(one._request for one in door.server.connections))
            drained = asyncio.create_task(door.server.drain(5))
            await asyncio.sleep(0.02)
            client.send(b"56789")
            assert json.loads((await client.answer())[1])["body"] == "0123456789"
            assert await client.rest() == b""
            await soon(drained, 1)

    run(main())


def test_drain_cuts_what_takes_too_long_and_waits_for_its_handler() -> None:
    async def main() -> None:
        async with served() as door:
            client = await door.open()
            client.send(b"GET /stream HTTP/1.1\r\nhost: t\r\n\r\n")
            await client.head()
            await soon(door.server.drain(0.1), 2)
            assert door.ended == ["cancelled"]
            assert not (await client.rest()).endswith(b"0\r\n\r\n")

    run(main())


# -- anything at all ------------------------------------------------------------------------------

TOKENS = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n", b"POST /stream HTTP/1.1\r\n", b"host: t\r\n", b"\r\n", b"\n", b"\r",
        b"content-length: 3\r\n", b"content-length: 99999\r\n", b"transfer-encoding: chunked\r\n",
        b"3\r\nabc\r\n", b"0\r\n\r\n", b"abc", b"expect: 100-continue\r\n",
        b"connection: close\r\n",
        b"connection: upgrade\r\nupgrade: h2c\r\n", b"x: " + b"a" * 9000, b": ", b"\x00", b" ",
        GET, b"POST /large HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n",
    ]
)  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(
    pieces=st.lists(st.one_of(TOKENS, st.binary(max_size=30)), max_size=14),
    ending=st.sampled_from(["half", "reset", "leave"]),
)
@example(pieces=[b"POST / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"], ending="half")
def test_nothing_that_is_sent_harms_the_door(pieces: list[bytes], ending: str) -> None:
    """``run`` fails on every exception that nobody handled."""

    async def main() -> None:
        async with served() as door:
            door.go.set()
            client = await door.open()
            for piece in pieces:
                client.send(piece)
                await asyncio.sleep(0)
            if ending == "half" and not client.writer.transport.is_closing():
                client.writer.write_eof()
                await client.rest()
            elif ending == "reset":
                client.reset()
            client.writer.close()
            good = await door.open()
            good.send(GET)
            assert (await good.answer())[0] == 200
            good.writer.close()
            await until(lambda: not door.server.connections)

    run(main())


def test_httptools_is_strict_by_default() -> None:
    """The refusals above rest on it."""
    parser = httptools.HttpRequestParser(object())
    with pytest.raises(httptools.HttpParserError):
        parser.feed_data(b"GET / HTTP/1.1\nhost: t\n\n")


def test_many_clients_that_trickle_are_all_cut_and_hold_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        quick_clocks(monkeypatch, HEADER_SECONDS=0.4, BODY_SECONDS=0.6, CHECK_SECONDS=0.2)
        async with served() as door:
            head = b"POST /good HTTP/1.1\r\nhost: t\r\ncontent-length: 900\r\n\r\n"
            slow = [await door.open() for _ in range(120)]
            for number, client in enumerate(slow):
                client.send(b"GET /good HTTP/1.1\r\nho" if number % 2 else head)

            async def trickle() -> None:
                while True:
                    await asyncio.sleep(0.05)
                    for client in slow:
                        client.send(b"x")

            task = asyncio.create_task(trickle())
            other = await door.open()
            other.send(GET)
            assert (await other.answer())[0] == 200
            await asyncio.gather(*(client.rest() for client in slow))
            task.cancel()
            other.writer.close()

    run(main())


def test_one_connection_too_many_is_told_so_and_ended() -> None:
    async def main() -> None:
        async with served() as door:
            door.server.max_connections = 2
            first, second = await door.open(), await door.open()
            for client in (first, second):
                client.send(GET)
                assert (await client.answer())[0] == 200
            third = await door.open()
            status, body = await third.answer()
            assert (status, json.loads(body)["error"]["code"]) == (503, "connections_too_many")
            assert await third.rest() == b""
            assert door.server.statistics().refused == 1
            first.writer.close()
            await until(lambda: door.server.statistics().connections == 1)
            again = await door.open()
            again.send(GET)
            assert (await again.answer())[0] == 200
            await until(lambda: door.server.leaving == 0)

    run(main())
