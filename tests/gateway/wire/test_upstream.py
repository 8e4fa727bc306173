"""Every answer of an upstream, good or broken, ends in a reply or in a named fault, in time."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gateway.loops import run, soon, until
from tests.gateway.wire.raw import Conversation, answering, raw_server, read_request
from tidegate.gateway.wire import upstream
from tidegate.gateway.wire.upstream import (
    FAULTS,
    ConnectionPool,
    PoolStatistics,
    UpstreamConnection,
    UpstreamFault,
    UpstreamReply,
    parse_origin,
)

REQUEST = b"POST /v1/x HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\nhi"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def pool_to(port: int) -> ConnectionPool:
    return ConnectionPool(parse_origin(f"http://127.0.0.1:{port}"))


async def begin(
    pool: ConnectionPool,
    *,
    total: float = 5.0,
    quiet: float | None = None,
    most: int = upstream.MAX_ANSWER,
) -> UpstreamConnection:
    """Send a request on a kept or a fresh connection of ``pool``."""
    connection = pool.take() or await pool.connect(1.0)
    deadline = asyncio.get_running_loop().time() + total
    connection.send(REQUEST, deadline=deadline, quiet=quiet, most=most)
    return connection


async def ask(pool: ConnectionPool, total: float = 5.0) -> UpstreamReply:
    connection = await begin(pool, total=total)
    try:
        return await soon(connection.whole())
    finally:
        connection.finish()


async def read_all(pool: ConnectionPool, *, quiet: float = 2.0, total: float = 5.0) -> bytes:
    connection = await begin(pool, quiet=quiet, total=total)
    try:
        await soon(connection.head())
        got = b""
        while data := await soon(connection.read()):
            connection.first_token_seen(quiet)
            got += data
        return got
    finally:
        connection.finish()


def whole_of(talk: Conversation, total: float = 5.0) -> UpstreamReply:
    """The answer of an upstream that behaves as ``talk``; its pool is left empty of the busy."""

    async def main() -> UpstreamReply:
        async with raw_server(talk) as server:
            pool = pool_to(server.port)
            try:
                return await ask(pool, total)
            finally:
                assert pool.statistics().busy == 0
                pool.close()

    return run(main())


def fault_of(talk: Conversation, total: float = 5.0) -> str:
    with pytest.raises(UpstreamFault) as caught:
        whole_of(talk, total)
    return caught.value.code


# -- answers that are well ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "close"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", False),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
         False),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", True),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\n"
         b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", False),
    ],
    ids=["content-length", "chunked", "until close", "HTTP/1.0", "after interim answers"],
)  # fmt: skip
def test_every_framing_of_a_body(answer: bytes, close: bool) -> None:
    reply = whole_of(answering(answer, close=close))
    assert (reply.status, reply.body) == (200, b"hello")
    assert b"link" not in reply.headers


def test_header_names_are_lower_case_and_trailers_are_no_headers() -> None:
    reply = whole_of(
        answering(
            b"HTTP/1.1 429 Slow\r\nRETRY-After: 7\r\nTransfer-Encoding: Chunked\r\n\r\n"
            b"2\r\nno\r\n0\r\nretry-after: 99\r\nx-late: 1\r\n\r\n"
        )
    )
    assert reply.status == 429
    assert reply.headers[b"retry-after"] == b"7"
    assert b"x-late" not in reply.headers


def test_a_connection_is_kept_and_used_again() -> None:
    async def main() -> None:
        async with raw_server(answering(OK)) as server:
            pool = pool_to(server.port)
            for _ in range(5):
                assert (await ask(pool)).body == b"ok"
                assert pool.statistics() == PoolStatistics(busy=0, idle=1)
            assert server.accepted == 1
            pool.close()
            assert pool.statistics() == PoolStatistics(busy=0, idle=0)

    run(main())


def test_a_used_connection_says_so() -> None:
    async def main() -> None:
        async with raw_server(answering(OK)) as server:
            pool = pool_to(server.port)
            for reused in (False, True, True):
                connection = await begin(pool)
                assert connection.was_reused is reused
                await connection.whole()
                connection.finish()
            pool.close()

    run(main())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        OK + b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad",
        OK + b"x",
        OK + b"\r\n\r\nHTTP/1.1 500 Oh\r\ncontent-length: 3\r\n\r\nbad",
    ],
    ids=["connection: close", "HTTP/1.0", "a second answer", "a stray byte", "an error follows"],
)
def test_a_connection_that_cannot_be_trusted_is_not_used_again(answer: bytes) -> None:
    async def main() -> None:
        async with raw_server(answering(answer)) as server:
            pool = pool_to(server.port)
            for n in range(1, 4):
                reply = await ask(pool)
                assert (reply.status, reply.body) == (200, b"ok")
                assert reply.headers[b"content-length"] == b"2"
                assert pool.statistics() == PoolStatistics(busy=0, idle=0)
                assert server.accepted == n

    run(main())


def test_bytes_that_come_while_a_connection_rests_end_it() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await asyncio.sleep(0.05)
        writer.write(OK)
        await reader.read()

    async def main() -> None:
        async with raw_server(talk) as server:
            pool = pool_to(server.port)
            await ask(pool)
            await until(lambda: pool.statistics().idle == 0)
            assert pool.take() is None

    run(main())


def test_a_kept_connection_that_the_upstream_closed_is_not_taken() -> None:
    async def main() -> None:
        async with raw_server(answering(OK, close=True, linger=0.05)) as server:
            pool = pool_to(server.port)
            await ask(pool)
            await until(lambda: pool.statistics().idle == 0)
            assert (await ask(pool)).body == b"ok"
            assert server.accepted == 2
            pool.close()

    run(main())


def test_a_connection_rests_for_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "_IDLE_KEPT", 0.05)

    async def main() -> None:
        async with raw_server(answering(OK)) as server:
            pool = pool_to(server.port)
            await ask(pool)
            await until(lambda: pool.statistics().idle == 0)
            await soon(server.gone.wait())

    run(main())


# -- answers that are broken ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", "upstream_cut"),
        (b"HTTP/1.1 200 OK\r\ncontent-le", "upstream_cut"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", "upstream_cut"),
        (STREAM + b"4\r\nhalf\r\n", "upstream_cut"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n4\r\nhalf\r\n", "upstream_cut"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "upstream_cut"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "upstream_protocol"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n", "upstream_protocol"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!",
         "upstream_protocol"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "upstream_protocol"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n"
         b"0\r\n\r\n", "upstream_protocol"),
        (b"HTTP/1.1 200 OK\r\nx: y\r\n folded\r\ncontent-length: 2\r\n\r\nok",
         "upstream_protocol"),
        (b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok", "upstream_protocol"),
        (b"HTTP/1.1 200 OK\r\nx: a\rb: c\r\ncontent-length: 2\r\n\r\nok", "upstream_protocol"),
        (b"HTTP/1.1 101 Switching\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\nPRI",
         "upstream_protocol"),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nok",
         "upstream_protocol"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
         "upstream_protocol"),
    ],
)  # fmt: skip
def test_a_broken_answer_has_a_name(answer: bytes, code: str) -> None:
    assert fault_of(answering(answer, close=True)) == code
    assert code in FAULTS


@pytest.mark.parametrize("quiet", [None, 1.0], ids=["whole", "stream"])
@pytest.mark.parametrize("head", [b"", b"content-encoding: gzip\r\n"], ids=["late", "packed"])
def test_an_answer_without_a_length_that_failed_is_not_complete(
    head: bytes, quiet: float | None
) -> None:
    """Its end is the close, also ours: what was given up half-way must not look like all of it."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n%b\r\nhalf" % head)
        await reader.read()

    async def main() -> None:
        async with raw_server(talk) as server:
            pool = pool_to(server.port)
            with pytest.raises(UpstreamFault):
                await (ask(pool, 0.2) if quiet is None else read_all(pool, quiet=quiet, total=0.2))
            connection = await begin(pool, total=0.2, quiet=quiet)
            await until(lambda: connection._fault is not None)
            await until(lambda: connection._transport is None)
            with pytest.raises(UpstreamFault):
                await connection.whole()
            connection.finish()

    run(main())


def test_a_reset_is_a_cut() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        handle = writer.get_extra_info("socket")
        linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    assert fault_of(talk) == "upstream_cut"


def test_an_until_close_body_that_is_reset_is_a_cut() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await asyncio.sleep(0.05)
        handle = writer.get_extra_info("socket")
        linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    assert fault_of(talk) == "upstream_cut"


def test_a_whole_answer_is_bounded() -> None:
    async def main() -> None:
        big = b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n" + b"x" * 5000
        async with raw_server(answering(big)) as server:
            pool = pool_to(server.port)
            connection = await begin(pool, most=1000)
            with pytest.raises(UpstreamFault) as caught:
                await soon(connection.whole())
            assert caught.value.code == "upstream_too_large"
            connection.finish()
            pool.close()

    run(main())


@pytest.mark.parametrize(
    ("start", "again"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"x-endless: %b\r\n" % (b"a" * 1000)),
        (b"HTTP/1.1 200 OK\r\nx-endless: ", b"a" * 1000),
        (b"HTTP/1.1 200 ", b"O" * 1000),
        (b"", b"HTTP/1.1 103 Early\r\nlink: %b\r\n\r\n" % (b"a" * 1000)),
        (STREAM + b"5;x=", b"a" * 1000),
        (STREAM + b"0\r\n", b"x-trailer: %b\r\n" % (b"a" * 1000)),
    ],
    ids=["headers", "one header", "a reason", "interim answers", "a chunk extension", "trailers"],
)  # fmt: skip
@pytest.mark.parametrize("quiet", [None, 5.0], ids=["whole", "stream"])
def test_what_is_no_content_is_bounded(start: bytes, again: bytes, quiet: float | None) -> None:
    sent = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(start)
        while sent < 64 << 20:
            writer.write(again)
            sent += len(again)
            await writer.drain()

    async def main() -> str:
        async with raw_server(talk) as server:
            pool = pool_to(server.port)
            with pytest.raises(UpstreamFault) as caught:
                await (ask(pool) if quiet is None else read_all(pool))
            await soon(server.gone.wait())
            assert pool.statistics() == PoolStatistics(0, 0)
            return caught.value.code

    assert run(main()) in ("upstream_too_large", "upstream_protocol")  # llhttp has bounds as well
    assert sent < 16 << 20, "the connection is closed, not read to its end"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b"7", "7"),
        (b"Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 2026 07:28:00 GMT"),
        (b"-1", None),
        (b"1e9", None),
        (b"99999999", None),
        (b"soon; sk-secret", None),
        (b"\xff", None),
        (b"", None),
    ],
)
def test_only_a_real_retry_after_is_passed_on(value: bytes, kept: str | None) -> None:
    assert UpstreamReply(429, {b"retry-after": value}).retry_after == kept
    assert UpstreamReply(429, {}).retry_after is None


@settings(max_examples=60, deadline=None)
@given(garbage=st.binary(max_size=120), prefix=st.sampled_from([b"", OK[:-2], STREAM, OK]))
def test_any_bytes_end_in_a_reply_or_a_fault(garbage: bytes, prefix: bytes) -> None:
    try:
        ended = str(whole_of(answering(prefix + garbage, close=True)).status)
    except UpstreamFault as fault:
        ended = fault.code
    assert ended in ("upstream_cut", "upstream_protocol") or 100 <= int(ended) <= 999


# -- the clocks -----------------------------------------------------------------------------------


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


def test_nobody_listens() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        pool = pool_to(closed.getsockname()[1])
        with pytest.raises(UpstreamFault) as caught:
            run(pool.connect(1.0))
    assert caught.value.code == "upstream_unreachable"
    assert pool.statistics().busy == 0


def test_the_connect_clock() -> None:
    async def main() -> ConnectionPool:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            waiting = []
            try:
                for _ in range(4):  # fill the queue of a server that accepts nobody
                    one = socket.socket()
                    one.setblocking(False)
                    one.connect_ex(full.getsockname())
                    waiting.append(one)
                pool = pool_to(full.getsockname()[1])
                started = asyncio.get_running_loop().time()
                with pytest.raises(UpstreamFault) as caught:
                    await pool.connect(0.1)
                assert asyncio.get_running_loop().time() - started < 1
                assert caught.value.code == "upstream_connect_timeout"
                return pool
            finally:
                for one in waiting:
                    one.close()

    assert run(main()).statistics().busy == 0


def test_the_total_clock() -> None:
    assert fault_of(silent, total=0.1) == "upstream_total_timeout"


def test_the_total_clock_of_a_stream_that_never_stops() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(STREAM)
        while not writer.is_closing():  # it is, when the client left between two drains
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    assert stream_fault(talk, quiet=1.0, total=0.2) == "upstream_total_timeout"


def stream_fault(talk: Conversation, *, quiet: float, total: float = 5.0) -> str:
    async def main() -> str:
        async with raw_server(talk) as server:
            pool = pool_to(server.port)
            with pytest.raises(UpstreamFault) as caught:
                await read_all(pool, quiet=quiet, total=total)
            assert pool.statistics() == PoolStatistics(0, 0)
            await soon(server.gone.wait())
            return caught.value.code

    return run(main())


def test_the_first_token_clock_before_headers() -> None:
    assert stream_fault(silent, quiet=0.1) == "upstream_first_token_timeout"


def test_pings_do_not_stop_the_first_token_clock() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(STREAM)
        while not writer.is_closing():
            writer.write(b"8\r\n: ping\n\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.03)

    async def listen(connection: UpstreamConnection) -> None:
        try:
            while await soon(connection.read()):
                pass
        finally:
            connection.finish()

    async def main() -> str:
        async with raw_server(talk) as server:
            connection = await begin(pool_to(server.port), quiet=0.2)
            with pytest.raises(UpstreamFault) as caught:
                await listen(connection)
            return caught.value.code

    assert run(main()) == "upstream_first_token_timeout"


def test_the_idle_clock_between_tokens() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(STREAM + b"2\r\nhi\r\n")
        await reader.read()

    assert stream_fault(talk, quiet=0.1) == "upstream_idle_timeout"


def test_a_first_token_that_comes_in_time_starts_the_idle_clock_anew() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(STREAM)
        for _ in range(6):
            await asyncio.sleep(0.1)
            writer.write(b"2\r\nhi\r\n")
        writer.write(b"0\r\n\r\n")
        await reader.read()

    async def main() -> bytes:
        async with raw_server(talk) as server:
            pool = pool_to(server.port)
            try:
                return await read_all(pool, quiet=0.4)
            finally:
                pool.close()

    assert run(main()) == b"hi" * 6


# -- streams --------------------------------------------------------------------------------------


def test_what_came_before_a_cut_is_read_before_the_fault() -> None:
    async def main() -> None:
        async with raw_server(answering(STREAM + b"4\r\nhalf\r\n", close=True)) as server:
            pool = pool_to(server.port)
            connection = await begin(pool, quiet=1)
            await connection.head()
            await until(lambda: not connection.usable)
            await asyncio.sleep(0.05)
            assert await connection.read() == b"half"
            with pytest.raises(UpstreamFault, match="closed by the upstream"):
                await connection.read()
            connection.finish()
            assert pool.statistics() == PoolStatistics(0, 0)

    run(main())


def test_a_slow_consumer_pauses_the_upstream_and_is_not_taken_for_silence() -> None:
    size = 16 << 20
    sent = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        block = b"x" * 65536
        for _ in range(size // len(block)):
            writer.write(block)
            sent += len(block)
            await writer.drain()
        await reader.read()

    async def main() -> None:
        async with raw_server(talk) as server:
            pool = pool_to(server.port)
            connection = await begin(pool, quiet=0.2)
            await connection.head()
            connection.first_token_seen(0.2)
            await asyncio.sleep(0.6)  # three times the idle limit
            held = sent
            assert held < size, "the upstream was never held back"
            got = len(await connection.read())
            assert got < 2 << 20, "one read must be bounded"
            while data := await soon(connection.read()):
                got += len(data)
            assert got == size
            connection.finish()
            assert pool.statistics() == PoolStatistics(0, 1)
            pool.close()

    run(main())


def test_a_connection_that_holds_its_reading_back_is_not_kept() -> None:
    size = upstream._READ_AHEAD + 1  # the last byte is the one too many
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size

    async def main() -> None:
        async with raw_server(answering(answer, OK)) as server:
            pool = pool_to(server.port)
            connection = await begin(pool, quiet=5)
            await until(lambda: connection._complete)
            connection.finish()  # as when the client has left
            assert pool.statistics() == PoolStatistics(0, 0)
            assert (await ask(pool, 1.0)).status == 200
            pool.close()

    run(main())


def test_an_unfinished_stream_closes_the_upstream_at_once() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(STREAM + b"2\r\nhi\r\n")
        await reader.read()

    async def main() -> None:
        async with raw_server(talk) as server:
            pool = pool_to(server.port)
            connection = await begin(pool, quiet=1)
            await connection.head()
            assert await connection.read() == b"hi"
            connection.finish()
            assert pool.statistics() == PoolStatistics(0, 0)
            await soon(server.gone.wait(), 1)

    run(main())


@pytest.mark.parametrize("late", [0.0, 0.05])
def test_drain_keeps_the_connection_for_the_next(late: float) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(STREAM + b"6\r\n[DONE]\r\n")
            await asyncio.sleep(late)
            writer.write(b"0\r\n\r\n")

    async def main() -> None:
        async with raw_server(talk) as server:
            pool = pool_to(server.port)
            for _ in range(3):
                connection = await begin(pool, quiet=1)
                await connection.head()
                assert await connection.read() == b"[DONE]"
                connection.finish(drain=True)
                await until(lambda: pool.statistics() == PoolStatistics(0, 1))
            assert server.accepted == 1
            pool.close()

    run(main())


def test_a_drain_that_gets_no_end_is_given_up() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(STREAM + b"6\r\n[DONE]\r\n")
        await reader.read()

    async def main() -> None:
        async with raw_server(talk) as server:
            pool = pool_to(server.port)
            connection = await begin(pool, quiet=1)
            await connection.head()
            await connection.read()
            connection.finish(drain=True)
            assert pool.statistics().busy == 1
            await until(lambda: pool.statistics() == PoolStatistics(0, 0))
            await soon(server.gone.wait(), 1)

    run(main())


def test_whoever_stops_waiting_leaves_nothing_behind() -> None:
    async def main() -> None:
        async with raw_server(silent) as server:
            pool = pool_to(server.port)
            tasks = [asyncio.create_task(ask(pool)) for _ in range(20)]
            await until(lambda: server.accepted == 20)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert pool.statistics() == PoolStatistics(0, 0)
            await asyncio.sleep(0.05)
            gc.collect()
            kept = [one for one in gc.get_objects() if isinstance(one, UpstreamConnection)]
            assert [one for one in kept if one._transport is not None] == []

    run(main())


# -- where to -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "authority", "prefix"),
    [
        ("http://h/v1/", "h", "/v1"),
        ("https://h", "h", ""),
        ("https://h:8443/a/b", "h:8443", "/a/b"),
        ("http://[::1]:80/v1", "[::1]", "/v1"),
        ("https://[::1]:80", "[::1]:80", ""),
    ],
)
def test_an_origin(url: str, authority: str, prefix: str) -> None:
    origin = parse_origin(url)
    assert (origin.authority, origin.prefix) == (authority, prefix)


@pytest.mark.parametrize(
    "url",
    ["", "h:80", "ftp://h", "http://", "http://u:p@h", "http://h?x=1", "http://h#a",
     "http://h:99999", "http://h:x", "http://a..b/v1", "http://" + "a" * 64 + ".example",
     "http://h/v1 HTTP/1.1\r\nx: y", "http://h/a\tb", "http://h/\u00fc", "http://h x/v1",
     "http://h\r\nhost: evil/v1", "http://h\\@evil/v1", "http://user@h", "http://:@h"],
)  # fmt: skip
def test_no_origin(url: str) -> None:
    with pytest.raises(ValueError):
        parse_origin(url)


def test_a_base_url_with_a_key_in_it_is_not_repeated() -> None:
    for url in ("https://user:sk-secret@h/v1", "https://h/v1?key=sk-secret", "https://h#sk-secret"):
        with pytest.raises(ValueError, match="must not hold") as caught:
            parse_origin(url)
        assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "2852039166", "[::ffff:169.254.169.254]", "[fe80::1]"]
)
def test_a_base_url_never_leads_to_metadata(host: str) -> None:
    with pytest.raises(ValueError, match="metadata"):
        parse_origin(f"http://{host}/latest")


def test_a_name_that_leads_to_metadata_is_left_before_a_byte_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when a name is bound anew after the release was built. No machine of the tests has a
    link-local service: what counts as one is shifted to loopback."""
    monkeypatch.setattr(upstream, "is_metadata", lambda host: host == "127.0.0.1")
    heard = b""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        heard = await reader.read()

    async def main() -> None:
        async with raw_server(talk) as server:
            pool = ConnectionPool(upstream.UpstreamOrigin("127.0.0.1", server.port, False, ""))
            with pytest.raises(UpstreamFault, match="metadata") as caught:
                await pool.connect(1.0)
            assert caught.value.code == "upstream_unreachable"
            await soon(server.gone.wait())
            assert pool.statistics() == PoolStatistics(0, 0)

    run(main())
    assert heard == b""


# -- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=localhost",
        "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
    ]  # fmt: skip
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed: no certificate can be made")
    return cert, key


@pytest.mark.parametrize("trusted", [True, False])
def test_tls_is_spoken_and_the_certificate_is_checked(
    certificate: tuple[Path, Path], trusted: bool
) -> None:
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(*certificate)

    async def main() -> None:
        async with raw_server(answering(OK), ssl=served) as server:
            trust = ssl.create_default_context(cafile=certificate[0]) if trusted else None
            pool = ConnectionPool(parse_origin(f"https://127.0.0.1:{server.port}"), tls=trust)
            if trusted:
                for _ in range(2):
                    assert (await ask(pool)).body == b"ok"
                assert pool.statistics() == PoolStatistics(0, 1)
            else:
                with pytest.raises(UpstreamFault) as caught:
                    await ask(pool)
                assert caught.value.code == "upstream_unreachable"
                assert pool.statistics() == PoolStatistics(0, 0)
            pool.close()
            await asyncio.sleep(0.05)

    run(main())
