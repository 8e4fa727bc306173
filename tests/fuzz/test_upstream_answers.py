"""Any bytes of an upstream are an answer, the same that h11 reads, or a fault with a name."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.budget import fuzz
from tests.fuzz.inputs import broken_bytes, pieces_of
from tests.fuzz.wires import Wire, turns
from tests.gateway.loops import run
from tidegate.gateway.wire.upstream import (
    FAULTS,
    ConnectionPool,
    PoolStatistics,
    UpstreamConnection,
    UpstreamFault,
    UpstreamOrigin,
    UpstreamReply,
)

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5\r\n\r\nhello"
SEEDS = [
    OK,
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    b"2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nt: r\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\ndata: [DONE]\n\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + OK,
    b"HTTP/1.1 429 Slow Down\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\nno",
    b"HTTP/1.0 500 Oh\r\nconnection: close\r\n\r\nbroken",
    b"HTTP/1.1 204 Nothing\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n",
]
TOKENS = [
    b"\r\n", b"\n", b"\r", b" ", b"\t", b"\x00", b":", b",", b"content-length: 3\r\n", b"-1",
    b"transfer-encoding: chunked\r\n", b"transfer-encoding: gzip, chunked\r\n", b" folded\r\n",
    b"content-encoding: gzip\r\n", b"connection: close\r\n", b"HTTP/1.1 101 Up\r\n", b"HTTP/1.1 ",
    b"upgrade: h2c\r\nconnection: upgrade\r\n", b"ffffffffffffffff\r\n", b"0\r\n\r\n", b"\xff",
    b"x: " + b"a" * 30_000 + b"\r\n", OK,
]  # fmt: skip
ANY = st.one_of(broken_bytes(SEEDS, TOKENS), st.binary(max_size=60))
Outcome = tuple[str, int, bytes]


def read_here(pieces: list[bytes], *, streamed: bool = False) -> Outcome:
    """("reply", status, body) or (code of the fault, 0, b""); no connection is left over."""

    async def main() -> Outcome:
        pool = ConnectionPool(UpstreamOrigin(host="t", port=80, tls=False, prefix=""))
        pool._busy = 1
        connection = UpstreamConnection(pool)
        wire = Wire(connection)
        deadline = asyncio.get_running_loop().time() + 60
        connection.send(b"a request", deadline=deadline, quiet=60.0 if streamed else None)
        await wire.feed(pieces)
        if not connection._complete:
            wire.lose()
        await turns()
        try:
            reply = await (stream(connection) if streamed else connection.whole())
            return "reply", reply.status, reply.body
        except UpstreamFault as fault:
            assert fault.code in FAULTS
            return fault.code, 0, b""
        finally:
            connection.finish()
            kept = pool.take()
            assert kept is None or kept.usable
            assert pool.statistics() == PoolStatistics(busy=int(kept is not None), idle=0)
            wire.lose()

    return run(main())


async def stream(connection: UpstreamConnection) -> UpstreamReply:
    head = await connection.head()
    body = b""
    while data := await connection.read():
        body += data
    return UpstreamReply(head.status, head.headers, body)


def read_there(data: bytes) -> Outcome:
    connection: Any = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 16)
    connection.send(h11.Request(method="POST", target="/", headers=[("host", "t")]))
    connection.send(h11.EndOfMessage())
    status, body = 0, b""
    try:
        connection.receive_data(data)
        connection.receive_data(b"")
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return "reply", status, body
            elif not isinstance(event, h11.InformationalResponse):
                return "cut", 0, b""
    except (h11.ProtocolError, RuntimeError):
        return "offended", 0, b""


@fuzz(400)
@given(data=ANY, streamed=st.booleans())
def test_two_readers_see_the_same_answer(data: bytes, streamed: bool) -> None:
    here, there = read_here([data], streamed=streamed), read_there(data)
    if here[0] == there[0] == "reply":
        assert here == there
    assert (here[0], there[0]) != ("reply", "cut"), "half an answer is no answer"


@fuzz()
@given(data=ANY.flatmap(lambda data: st.tuples(st.just(data), pieces_of(data))))
def test_pieces_make_no_difference(data: tuple[bytes, list[bytes]]) -> None:
    whole, pieces = data
    assert read_here([whole]) == read_here(pieces)
