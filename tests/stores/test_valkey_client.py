"""Every command answers in time or says ``ValkeyDown``; the connection comes back by itself."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import hiredis
import pytest

from tests.gateway.loops import run, soon, until
from tests.gateway.wire.raw import raw_server
from tidegate.stores.open import running
from tidegate.stores.valkey import valkey_spec, valkey_url
from tidegate.stores.valkey_client import ValkeyClient, ValkeyDown

WAIT = 0.5


def test_commands_and_their_kinds_of_answers(valkey_url: str) -> None:
    async def main() -> None:
        client = ValkeyClient(valkey_url, deadline=WAIT)
        await client.start()
        assert client.up
        assert await client.call("SET", b"k", b"\x00\xff\r\n") == b"OK"
        assert await client.call("GET", "k") == b"\x00\xff\r\n"
        assert await client.call("GET", "missing") is None
        assert await client.call("INCRBY", "n", 5) == 5
        assert await client.call("MGET", "k", "n") == [b"\x00\xff\r\n", b"5"]
        with pytest.raises(hiredis.ReplyError, match="WRONGTYPE"):
            await client.call("LPUSH", "k", "x")
        assert await client.call("GET", "n") == b"5", "an error of one command is its own"
        await client.stop()
        assert not client.up or client.statistics().pending == 0

    run(main())


def test_many_at_once_get_their_own_answers(valkey_url: str) -> None:
    async def main() -> None:
        client = ValkeyClient(valkey_url, deadline=2)
        await client.start()
        await asyncio.gather(*(client.call("SET", f"k{n}", n) for n in range(500)))
        found = await asyncio.gather(*(client.call("GET", f"k{n}") for n in range(500)))
        assert found == [b"%d" % n for n in range(500)]
        assert client.statistics().pending == 0
        await client.stop()

    run(main())


def test_whoever_stops_waiting_does_not_shift_the_answers_of_others(valkey_url: str) -> None:
    async def main() -> None:
        client = ValkeyClient(valkey_url, deadline=WAIT)
        await client.start()
        for n in range(20):
            client.call("SET", f"k{n}", n).cancel()
            left = client.call("GET", f"k{n}")
            assert await left == b"%d" % n
        await client.stop()

    run(main())


def test_send_waits_for_nothing_and_hides_its_errors(valkey_url: str) -> None:
    async def main() -> None:
        client = ValkeyClient(valkey_url, deadline=WAIT)
        client.send("SET", "a", "before the start")
        await client.start()
        client.send("SET", "a", 1)
        client.send("LPUSH", "a", 1)
        assert await client.call("GET", "a") == b"1"
        await client.stop()
        client.send("SET", "a", 2)
        with pytest.raises(ValkeyDown):
            await client.call("GET", "a")

    run(main())


def test_without_a_server_everything_says_so_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        client = ValkeyClient(f"unix://{tmp_path}/none.sock")
        await soon(client.start(), 1.5)
        assert not client.up
        started = asyncio.get_running_loop().time()
        for _ in range(100):
            with pytest.raises(ValkeyDown, match="no connection"):
                await client.call("GET", "k")
        assert asyncio.get_running_loop().time() - started < 2
        await client.stop()

    run(main())


def test_it_comes_back_and_says_so_once(app_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        client = ValkeyClient(valkey_url(app_folder), deadline=WAIT)
        with running(valkey_spec(app_folder)):
            await client.start()
            assert await client.call("SET", "k", 1) == b"OK"
        await until(lambda: not client.up)
        with pytest.raises(ValkeyDown):
            await client.call("GET", "k")
        await asyncio.sleep(0.3)
        with running(valkey_spec(app_folder)):
            await until(lambda: client.up)
            assert await client.call("GET", "k") is None
            assert client.statistics().reconnects == 1
            await client.stop()

    with caplog.at_level(logging.WARNING, "tidegate.stores.valkey"):
        run(main())
    said = [record.message.split(" (")[0] for record in caplog.records]
    assert said == ["valkey went away", "valkey is back"]


def test_a_busy_loop_is_not_taken_for_a_store_that_is_away(valkey_url: str) -> None:
    async def main() -> None:
        client = ValkeyClient(valkey_url, deadline=0.1)
        await client.start()
        calls = [client.call("INCR", "n") for _ in range(20)]
        # As when many requests, or a large one, are served in one turn.
        time.sleep(0.25)  # noqa: ASYNC251
        assert await asyncio.gather(*calls) == list(range(1, 21))
        assert (client.up, client.statistics().timeouts) == (True, 0)
        await client.stop()

    run(main())


def test_a_server_that_does_not_answer_costs_one_deadline_each_then_nothing() -> None:
    quiet = False

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            if not quiet:
                writer.write(b"+PONG\r\n")

    async def main() -> None:
        nonlocal quiet
        async with raw_server(talk) as server:
            client = ValkeyClient(f"redis://127.0.0.1:{server.port}", deadline=0.03)
            await client.start()
            quiet = True
            loop = asyncio.get_running_loop()
            for _ in range(8):
                started = loop.time()
                with pytest.raises(ValkeyDown):
                    await client.call("GET", "k")
                assert loop.time() - started < 2
            await until(lambda: not client.up)
            with pytest.raises(ValkeyDown, match="no connection"):
                await client.call("GET", "k")
            quiet = False
            await until(lambda: client.up)
            await client.stop()
            await soon(server.gone.wait())

    run(main())


@pytest.mark.parametrize("answer", [b"!garbage\r\n", b"+OK\r\n+OK\r\n+OK\r\n", b""])
def test_nonsense_ends_the_connection_and_nothing_is_mixed_up(answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"+PONG\r\n")
        await reader.read(1000)
        writer.write(answer)
        if not answer:
            return
        await reader.read(1000)

    async def main() -> None:
        async with raw_server(talk) as server:
            client = ValkeyClient(f"redis://127.0.0.1:{server.port}", deadline=WAIT)
            await client.start()
            first = client.call("GET", "k")
            if answer.startswith(b"+OK"):
                assert await first == b"OK"
            else:
                with pytest.raises(ValkeyDown):
                    await first
            await until(lambda: client.statistics().reconnects > 0)
            await client.stop()

    run(main())


def test_password_and_database_of_the_url_are_used() -> None:
    seen = b""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        while data := await reader.read(1000):
            seen += data
            writer.write(b"+OK\r\n" * data.count(b"*"))

    async def main() -> None:
        async with raw_server(talk) as server:
            client = ValkeyClient(f"redis://me:p%40ss@127.0.0.1:{server.port}/3", deadline=WAIT)
            await client.start()
            assert client.up
            await client.stop()

    run(main())
    assert seen.startswith(b"*3\r\n$4\r\nAUTH\r\n$2\r\nme\r\n$4\r\np@ss\r\n")
    assert b"*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n" in seen
