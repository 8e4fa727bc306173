"""Servers and clients of raw bytes on loopback, for what no well-behaved library would send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Listening:
    """A raw server: ``accepted`` counts its connections."""

    def __init__(self) -> None:
        self.port = 0
        self.accepted = 0
        self.gone = asyncio.Event()
        """Set when a conversation has ended."""


@asynccontextmanager
async def raw_server(talk: Conversation, **settings: Any) -> AsyncIterator[Listening]:
    """Serve ``talk`` to each connection; whatever is still open is closed at the end."""
    here = Listening()
    tasks: set[asyncio.Task[Any]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            here.gone.set()
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, **settings)
    here.port = server.sockets[0].getsockname()[1]
    try:
        yield here
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One request with its body. IncompleteReadError at the end of the connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return head + await reader.readexactly(int(line.split(b":")[1]))
    return head


def answering(*answers: bytes, close: bool = False, linger: float = 0.0) -> Conversation:
    """Answer each request on a connection with the next of ``answers``, the last for ever."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        turn = 0
        while True:
            await read_request(reader)
            writer.write(answers[min(turn, len(answers) - 1)])
            await writer.drain()
            turn += 1
            if close:
                await asyncio.sleep(linger)
                return

    return talk
