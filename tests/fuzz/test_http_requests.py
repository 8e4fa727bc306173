"""The door of the gateway reads any bytes as h11, another reader of HTTP, does, or refuses them."""

from __future__ import annotations

from typing import Any

import h11
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.budget import fuzz
from tests.fuzz.inputs import broken_bytes, pieces_of
from tests.fuzz.wires import Wire, turns
from tests.gateway.loops import run
from tidegate.gateway.wire.http_server import HttpConnection, HttpRequest, HttpResponse, HttpServer

Seen = list[tuple[str, str, bytes]]

GET = b"GET /v1/models?x=1 HTTP/1.1\r\nhost: t\r\n\r\n"
SEEDS = [
    GET,
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\n\r\nhello" + GET,
    b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n"
    b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nt: r\r\n\r\n" + GET,
    b"POST /b HTTP/1.0\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nhi" + GET,
    b"POST /c HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nhi" + GET,
    b"GET http://t/d HTTP/1.1\r\nhost: t\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n" + GET,
    b"HEAD /e HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n" + GET,
]
TOKENS = [
    b"\r\n", b"\n", b"\r", b" ", b"\t", b"\x00", b"\x0b", b":", b",", b";", b"0\r\n\r\n", b"-1",
    b"content-length: 5\r\n", b"Content-Length: 0\r\n", b"content-length : 3\r\n", b"+5", b"0x5",
    b"transfer-encoding: chunked\r\n", b"transfer-encoding: identity\r\n", b"Transfer-Encoding:\t",
    b"chunked, chunked", b"xchunked", b"host: u\r\n", b" folded\r\n", b"ffffffffffffffff",
    b"HTTP/1.1", b"HTTP/2.0", b"connection: keep-alive, upgrade\r\n", b"\xff",
    b"GET / HTTP/1.1\r\n",
    b"_", b"x: " + b"a" * 40_000 + b"\r\n",
]  # fmt: skip
ANY = st.one_of(broken_bytes(SEEDS, TOKENS), st.binary(max_size=60))


def read_here(pieces: list[bytes], most: int = 1 << 20) -> tuple[Seen, bytes]:
    """The requests that a handler gets, and everything that is answered."""
    seen: Seen = []

    async def handle(request: HttpRequest, out: HttpResponse) -> None:
        seen.append((request.method, request.path, request.body))
        assert len(request.body) <= most
        out.whole(413 if request.too_large else 200, [("content-type", "text/plain")], b"ok")

    async def main() -> bytes:
        server = HttpServer(handle, most)
        wire = Wire(HttpConnection(server))
        await wire.feed(pieces)
        await turns(20)
        assert server.statistics().running == 0
        wire.lose()
        await turns()
        assert not server.connections
        return wire.written

    return seen, run(main())


def read_there(data: bytes) -> tuple[Seen, bool]:
    """The requests that h11 reads, and whether it took offence at something."""
    connection: Any = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 16)
    connection.receive_data(data)
    seen: Seen = []
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                method, target, body = event.method.decode(), event.target.decode("latin-1"), b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                seen.append((method, path_of(target), body))
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    return seen, False
                connection.start_next_cycle()
            else:
                return seen, False
    except h11.ProtocolError:
        return seen, True


def path_of(target: str) -> str:
    path = target.partition("?")[0]
    if not path.startswith("/") and "://" in path:
        path = "/" + path.partition("://")[2].partition("/")[2]
    return path


@fuzz(400)
@given(data=ANY)
def test_two_readers_see_the_same_requests(data: bytes) -> None:
    """What a proxy in front reads as one request is never two here, nor another one."""
    here, _ = read_here([data])
    there, offended = read_there(data)
    common = min(len(here), len(there))
    assert here[:common] == there[:common]
    if not offended:
        assert len(here) <= len(there)


@fuzz()
@given(data=ANY.flatmap(lambda data: st.tuples(st.just(data), pieces_of(data))))
def test_pieces_make_no_difference(data: tuple[bytes, list[bytes]]) -> None:
    """Only how many of those before garbage had begun when it came: the rest are not answered."""
    whole, apart = read_here([data[0]])[0], read_here(data[1])[0]
    common = min(len(whole), len(apart))
    assert whole[:common] == apart[:common]


@fuzz()
@given(data=ANY, most=st.integers(0, 8))
def test_whatever_comes_is_answered_in_http(data: bytes, most: int) -> None:
    seen, answered = read_here([data], most)
    reader: Any = h11.Connection(h11.CLIENT)
    for method, _, _ in [*seen, ("GET", "", b"")]:
        if not answered:
            return
        reader.send(h11.Request(method=method, target="/", headers=[("host", "t")]))
        reader.send(h11.EndOfMessage())
        reader.receive_data(answered)
        while not isinstance(event := reader.next_event(), h11.EndOfMessage):
            assert isinstance(event, (h11.InformationalResponse, h11.Response, h11.Data))
            if isinstance(event, h11.Response):
                assert event.status_code in (200, 400, 408, 413, 431)
        answered = reader.trailing_data[0]
        reader = h11.Connection(h11.CLIENT)
    assert not answered, "more answers than requests"
