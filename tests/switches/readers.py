"""Readers, takers and databases for tests of how switches reach a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from tidegate.switches import (
    KeyTable,
    Place,
    Standing,
    SwitchSnapshot,
    Worker,
    key_records,
    list_workers,
    snapshot,
    watch,
)
from tidegate.switches.snapshot import DIFFERENCE_QUERY, Difference, SwitchTables, difference_of

PLACE = Place(gateway="g", name="w", host="h")


class Reader:
    """Tables that are brought up to date by differences, as a watcher does."""

    def __init__(self) -> None:
        self.tables = SwitchTables()

    def catch_up(self, connection: psycopg.Connection) -> Difference:
        row = connection.execute(DIFFERENCE_QUERY, self.tables.known()).fetchone()
        fresh = difference_of(row)
        self.tables.apply(fresh, KeyTable(key_records(connection)) if fresh.whole else None)
        return fresh


class Gate:
    """A taker that has a snapshot wholly in force only while it is open, and shows what it runs."""

    def __init__(self) -> None:
        self.open = True
        self.keys = KeyTable()
        self.last: SwitchSnapshot | None = None
        self.in_force: SwitchSnapshot | None = None

    def take(self, snapshot: SwitchSnapshot, keys: KeyTable) -> None:
        self.last, self.keys = snapshot, keys

    def standing(self) -> Standing | None:
        if self.open:
            self.in_force = self.last
        now = self.in_force
        return None if now is None else Standing(version=now.version, history=now.history)

    def runs_all_of(self, connection: psycopg.Connection) -> bool:
        """Whether the tables here are those of PostgreSQL."""
        assert self.last is not None
        whole = snapshot(connection)
        same = all(getattr(self.last, name) == getattr(whole, name) for name in SAME)
        return same and self.keys == KeyTable(key_records(connection))


SAME = [name for name in SwitchSnapshot.__struct_fields__ if name != "history"]


@asynccontextmanager
async def watched(url: str, file: Path, place: Place = PLACE) -> AsyncIterator[Gate]:
    gate = Gate()
    task = asyncio.create_task(watch(url, gate, fallback_file=file, place=place))
    try:
        yield gate
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], bool], within: float = 20.0) -> None:
    async with asyncio.timeout(within):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def worker(connection: psycopg.Connection, name: str = PLACE.name) -> Worker | None:
    return next((one for one in list_workers(connection) if one.name == name), None)


def acknowledged(connection: psycopg.Connection, version: int) -> Callable[[], bool]:
    """Whether the worker's row says ``version``."""

    def holds() -> bool:
        found = worker(connection)
        return found is not None and found.version == version

    return holds


def database_name(url: str) -> str:
    return str(conninfo_to_dict(url)["dbname"])


def renamed(url: str, name: str) -> str:
    return url.replace(f"/{database_name(url)}?", f"/{name}?")


def back_up(url: str) -> str:
    """URL of a copy of the database; nobody may be connected."""
    name = f"{database_name(url)}_backup"
    with psycopg.connect(renamed(url, "postgres"), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(database_name(url))
            )
        )
    return renamed(url, name)


def restore(url: str, backup: str) -> None:
    """Put the copy in place of the database, whoever is connected."""
    name, other = (sql.Identifier(database_name(one)) for one in (url, backup))
    with psycopg.connect(renamed(url, "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
        connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(other, name))


class SwallowingProxy:
    """Loopback in front of PostgreSQL that passes all on but, while ``swallow``, notifications."""

    def __init__(self, url: str) -> None:
        found = conninfo_to_dict(url)
        self._socket = f"{found['host']}/.s.PGSQL.{found.get('port') or 5432}"
        self._found = found
        self._handlers: set[asyncio.Task[None]] = set()
        self.swallow = True
        self.connections = 0

    async def __aenter__(self) -> SwallowingProxy:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        user, name = self._found["user"], self._found["dbname"]
        self.url = f"postgresql://{user}@127.0.0.1:{port}/{name}?sslmode=disable&gssencmode=disable"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        handler = asyncio.current_task()
        assert handler is not None
        self._handlers.add(handler)
        from_server, to_server = await asyncio.open_unix_connection(self._socket)
        pumps = [
            asyncio.create_task(self._to_server(reader, to_server)),
            asyncio.create_task(self._to_client(from_server, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in pumps:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for one in (to_server, writer):
                one.close()
                with suppress(OSError):
                    await one.wait_closed()

    async def _to_server(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)

    async def _to_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:  # a message is its kind, its length with these four bytes, and its body
            head = await reader.readexactly(5)
            body = await reader.readexactly(int.from_bytes(head[1:]) - 4)
            if head[:1] != b"A" or not self.swallow:
                writer.write(head + body)
