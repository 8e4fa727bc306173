"""The stamped upstream and its client, against each other over loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httptools
import pytest

from bench.gateway import streams, upstream_stream
from bench.gateway.children import BenchError
from bench.gateway.door import Door, openai_door
from bench.gateway.upstream_stream import CHUNKS, EVERY, FIRST


def _measure(
    protocol: Callable[[], asyncio.Protocol], seconds: float = 0.4
) -> list[streams.Stream]:
    """Stream from a server of ``protocol`` in this process."""

    async def go() -> list[streams.Stream]:
        server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        door = openai_door(port, "/v1/chat/completions", "m").streamed()
        async with server:
            return await streams._collect(door, seconds, 2, 1)

    return asyncio.run(go())


def test_streams_are_whole_and_timed_by_the_upstreams_stamps() -> None:
    seen = _measure(upstream_stream.Upstream)
    assert len(seen) >= 2
    for stream in seen:
        assert len(stream.sent) == len(stream.received) == CHUNKS
        assert stream.asked < stream.reached < stream.sent[0] < stream.received[0]
        assert all(delay > 0 for delay in stream.delays)
        # Each chunk has a time of its own after the request: a late first makes no other late.
        span = (stream.sent[-1] - stream.reached) / 1e9
        assert span >= (FIRST + (CHUNKS - 1) * EVERY) * 0.9
        assert (stream.sent[0] - stream.reached) / 1e9 >= FIRST * 0.9
    figures = streams.figures(seen)
    assert figures["chunks"] == len(seen) * CHUNKS


def test_the_first_token_leaves_out_what_the_upstream_waited() -> None:
    stream = streams.Stream(asked=0, reached=1_000_000, sent=[21_000_000], received=[23_000_000])
    assert stream.first_token == pytest.approx(3.0)  # 1 ms there, 2 ms back, not the 20 between
    assert stream.delays == [pytest.approx(2.0)]


def test_a_relay_that_holds_chunks_back_is_found_out() -> None:
    class Holding(upstream_stream.Upstream):
        """Passes on two chunks at a time."""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(_InPairs(transport))  # type: ignore[arg-type]

    class _InPairs:
        def __init__(self, transport: asyncio.BaseTransport) -> None:
            self._transport, self._kept = transport, b""

        def write(self, data: bytes) -> None:
            if b"@" in data and not self._kept:
                self._kept = data
                return
            self._transport.write(self._kept + data)  # type: ignore[attr-defined]
            self._kept = b""

        def close(self) -> None:
            self._transport.close()

    figures = streams.figures(_measure(Holding))
    assert figures["held_back"] >= figures["streams"] * CHUNKS // 2  # type: ignore[operator]


def _answering(answer: bytes) -> Callable[[], asyncio.Protocol]:
    class Server(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._transport = transport
            self._parser = httptools.HttpRequestParser(self)

        def data_received(self, data: bytes) -> None:
            self._parser.feed_data(data)

        def on_message_complete(self) -> None:
            self._transport.write(answer)  # type: ignore[attr-defined]
            self._transport.close()

    return Server


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Oops\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        b"what\r\n\r\n",
    ],
    ids=["error", "nothing in it", "cut", "not HTTP"],
)
def test_what_is_not_a_whole_stream_ends_the_measurement(answer: bytes) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        _measure(_answering(answer), 0.1)
    assert all(isinstance(error, BenchError) for error in raised.value.exceptions)


def test_a_door_asks_with_a_counter_of_constant_width() -> None:
    door = Door(1, "/p", '{"model":"m","messages":"@counter@!"}', {"authorization": "Bearer k"})
    before, after = door.request()
    head, _, body = before.partition(b"\r\n\r\n")
    assert body == b'{"model":"m","messages":"'
    assert after == b'!"}'
    length = int(head.rpartition(b"content-length: ")[2])
    assert length == len(body) + 20 + len(after)
    assert b"authorization: Bearer k\r\n" in head
    assert door.streamed().body == '{"model": "m", "messages": "@counter@!", "stream": true}'


def test_a_door_without_a_counter_is_refused() -> None:
    with pytest.raises(ValueError, match="counter"):
        Door(1, "/p", "{}").request()
