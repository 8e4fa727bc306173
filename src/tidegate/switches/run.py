"""Watcher of a gateway worker: brings it the switches, whatever happens to PostgreSQL.

A change is seen through NOTIFY within milliseconds; a poll four times a second is the net below it,
and the only way where notifications are lost. Only what changed since the worker's version is
read. What is in force is written back, so that whoever made the change knows. While PostgreSQL is
away the last switches stay in force, also over a restart: they are kept in files.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, LiteralString, Protocol

import msgspec
import psycopg

from tidegate.switches.kept import SwitchKeeper, read_kept
from tidegate.switches.listening import Listener
from tidegate.switches.rules import KeyTable
from tidegate.switches.snapshot import (
    DIFFERENCE_QUERY,
    KEY_PAGE_QUERY,
    PAGE,
    VERSION_QUERY,
    Difference,
    SwitchTables,
    difference_of,
    page_of,
)
from tidegate.switches.values import Standing, SwitchSnapshot
from tidegate.switches.workers import Place, Register

log = logging.getLogger("tidegate.switches")

POLL = 0.25
"""Seconds between polls of the version."""
BEAT = 1.0
"""Seconds between beats, and between notifications to oneself."""
POLL_WHILE_LOADING = 0.05
ANSWER_WITHIN = 3.0
"""Seconds until a connection that does not answer counts as lost."""
LONGEST_RETRY = 5.0
FIRST_WITHIN = 0.3
"""Seconds a start waits for PostgreSQL before it takes the kept switches: meanwhile nobody is let
in, and a PostgreSQL that hangs would make that seconds."""

OnChange = Callable[[SwitchSnapshot, KeyTable], None]


class Taker(Protocol):
    """Consumer of the switches in a worker: the gateway."""

    def take(self, snapshot: SwitchSnapshot, keys: KeyTable) -> None:
        """Put ``snapshot`` in force from the next request on; what must be loaded first follows by
        itself. ``keys`` is changed in place until a call brings another table."""
        ...

    def standing(self) -> Standing | None:
        """The newest version that is wholly in force; None before the first."""
        ...


class Plain:
    """Taker with nothing to load: a function that is called with each snapshot."""

    def __init__(self, on_change: OnChange) -> None:
        self._on_change = on_change
        self._standing: Standing | None = None

    def take(self, snapshot: SwitchSnapshot, keys: KeyTable) -> None:
        self._standing = Standing(version=snapshot.version, history=snapshot.history)
        self._on_change(snapshot, keys)

    def standing(self) -> Standing | None:
        return self._standing


async def watch(
    database_url: str, taker: Taker, *, fallback_file: Path, place: Place | None = None
) -> None:
    """Give ``taker`` the first snapshot and each new one, until cancelled; with a ``place``, write
    what it runs there, and a beat every second.

    When PostgreSQL is away at the start, or slow, what was kept in ``fallback_file`` and the file
    of keys beside it is the first; without those the first comes when PostgreSQL does.
    """
    watcher = _Watcher(database_url, taker, fallback_file, place)
    waited = asyncio.get_running_loop().call_later(FIRST_WITHIN, watcher.start_with_kept)
    retry = 0.0
    try:
        while True:
            try:
                await watcher.follow()
            except (psycopg.Error, OSError, msgspec.DecodeError) as error:
                watcher.lost(error)
            retry = 0.1 if watcher.took_connection() else min(LONGEST_RETRY, 2 * retry)
            await asyncio.sleep(retry * (0.5 + random.random() / 2))
    finally:
        waited.cancel()
        await watcher.close()


class _Watcher:
    """One worker's view of the switches: its tables, and whether PostgreSQL is there."""

    def __init__(
        self, database_url: str, taker: Taker, fallback_file: Path, place: Place | None
    ) -> None:
        self._url = database_url
        self._taker = taker
        self._file = fallback_file
        self._register = None if place is None else Register(place)
        self._listener = Listener()
        self._tables = SwitchTables()
        self._keeper = SwitchKeeper(fallback_file, self._tables)
        self._fresh = False
        """Whether the tables are of PostgreSQL; kept ones are not built upon."""
        self._reading: asyncio.Task[None] | None = None
        self._written: Standing | None = None
        self._beat = 0.0
        self._degraded = False
        self._connected = True

    async def follow(self) -> None:
        """Connect, listen, and pass changes on until the connection is lost or hears nothing."""
        async with asyncio.timeout(ANSWER_WITHIN):
            connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
        async with connection:
            # LISTEN first: what changes after the snapshot is then notified. The row of this
            # worker stands before the snapshot too: who changes something later sees it and waits.
            async with asyncio.timeout(ANSWER_WITHIN):
                await self._listener.listen(connection)
                await self._enter(connection)
            await self._catch_up(connection)
            self._recovered()
            try:
                while await self._step(connection):
                    pass
            except asyncio.CancelledError:
                await self._leave(connection)
                raise

    async def close(self) -> None:
        """Wait until the switches in force are on the disk."""
        if self._reading is not None:
            self._reading.cancel()
        await self._keeper.close()

    async def _step(self, connection: psycopg.AsyncConnection) -> bool:
        """Wait for a notification or the next poll, then put in force what changed. False: this
        connection hears nothing, and another should be tried."""
        loading = self._register is not None and self._loading()
        notified = await self._listener.wait(connection, POLL_WHILE_LOADING if loading else POLL)
        # After the wait, which reads what came while this loop did something long.
        if self._listener.renew(_now()):
            return False
        if _now() - self._beat >= BEAT:
            await self._pulse(connection)
        if notified or await self._is_behind(connection):
            await self._catch_up(connection)
        else:
            await self._acknowledge(connection)
        return True

    def _loading(self) -> bool:
        """Whether the last snapshot is not wholly in force yet, or is but not yet acknowledged."""
        standing, now = self._taker.standing(), self._tables.snapshot
        if standing is None or standing != self._written:
            return True
        return now is not None and standing.version != now.version

    def lost(self, error: Exception) -> None:
        """Log once that PostgreSQL is away; without any snapshot, start with the kept one."""
        if not self._degraded:
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            log.warning("degraded: keys and switches stay, PostgreSQL is away: %s", why)
        self._degraded = True
        self.start_with_kept()

    def start_with_kept(self) -> None:
        """Read the kept switches in a thread; they are used unless PostgreSQL is faster."""
        if self._tables.snapshot is None and (self._reading is None or self._reading.done()):
            self._reading = asyncio.create_task(self._read_kept())

    async def _read_kept(self) -> None:
        kept = await asyncio.to_thread(read_kept, self._file)
        # PostgreSQL may have answered while the files were read.
        if kept is not None and kept.snapshot is not None and self._tables.snapshot is None:
            self._tables.snapshot, self._tables.keys = kept.snapshot, kept.keys
            self._taker.take(kept.snapshot, kept.keys)

    def took_connection(self) -> bool:
        """Whether PostgreSQL was reached since this was last asked; true the first time."""
        connected, self._connected = self._connected, False
        return connected

    def _recovered(self) -> None:
        if self._degraded:
            log.warning("recovered: keys and switches are fresh again")
        self._degraded, self._connected = False, True

    async def _enter(self, connection: psycopg.AsyncConnection) -> None:
        """Write this worker's row without a version, until it acknowledges one anew."""
        self._written = None
        self._beat = 0.0
        if self._register is not None:
            await self._register.enter(connection, self._listener.alive)

    async def _leave(self, connection: psycopg.AsyncConnection) -> None:
        """Delete this worker's row as it ends, so that no change waits for it."""
        if self._register is not None:
            try:
                async with asyncio.timeout(1.0):
                    await self._register.leave(connection)
            except (psycopg.Error, OSError) as error:
                log.debug("this worker's row stays for a while: %s", error)

    async def _pulse(self, connection: psycopg.AsyncConnection) -> None:
        """Write a beat, and notify this connection itself to see whether LISTEN is alive."""
        async with asyncio.timeout(ANSWER_WITHIN):
            await self._listener.echo(connection, _now())
            if self._register is not None and not await self._register.beat(
                connection, self._listener.alive
            ):
                await self._enter(connection)
        self._beat = _now()

    async def _is_behind(self, connection: psycopg.AsyncConnection) -> bool:
        """Whether PostgreSQL has another version than the tables here."""
        now = self._tables.snapshot
        return now is None or await self._row(connection, VERSION_QUERY) != (now.version, now.mark)

    async def _catch_up(self, connection: psycopg.AsyncConnection) -> None:
        """Put in force what changed; everything, where the version here cannot be built upon."""
        known = self._tables.known(whole=not self._fresh)
        fresh = difference_of(await self._row(connection, DIFFERENCE_QUERY, known))
        if fresh.whole:
            fresh, keys = await self._whole(connection, known)
            if fresh.broken:
                # The row says a version of the old history: nobody may take it for the new one.
                await self._enter(connection)
            self._apply(fresh, keys)
        elif self._tables.known() != {"since": fresh.version, "mark": fresh.mark, "whole": False}:
            self._apply(fresh)
        await self._acknowledge(connection)

    async def _whole(
        self, connection: psycopg.AsyncConnection, known: Mapping[str, int | None]
    ) -> tuple[Difference, KeyTable]:
        """Everything at one version. Keys are read in pages, so that the loop turns in between, and
        into a table of their own: those in force stay whole until it is complete."""
        await self._row(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        fresh = difference_of(
            await self._row(connection, DIFFERENCE_QUERY, {**known, "whole": True})
        )
        keys, last = KeyTable(), ""
        while True:
            page = page_of(await self._row(connection, KEY_PAGE_QUERY, (last,)))
            keys.put(page)
            if len(page) < PAGE:
                break
            last = page[-1].id
        await self._row(connection, "COMMIT")
        return fresh, keys

    def _apply(self, fresh: Difference, keys: KeyTable | None = None) -> None:
        """Nothing here waits: no request sees keys of one version and switches of another."""
        self._tables.apply(fresh, keys)
        self._fresh = True
        assert self._tables.snapshot is not None
        self._taker.take(self._tables.snapshot, self._tables.keys)
        self._keeper.keep(fresh.keys, whole=keys is not None)

    async def _row(
        self,
        connection: psycopg.AsyncConnection,
        query: LiteralString,
        given: Mapping[str, int | None] | Sequence[str] | None = None,
    ) -> Any:
        async with asyncio.timeout(ANSWER_WITHIN):
            cursor = await connection.execute(query, given)
            return await cursor.fetchone() if cursor.description is not None else None

    async def _acknowledge(self, connection: psycopg.AsyncConnection) -> None:
        """Write what is wholly in force here, when that is not what was written."""
        standing, now = self._taker.standing(), self._tables.snapshot
        if self._register is None or standing is None or standing == self._written:
            return
        if now is None or standing.history != now.history:
            return  # a version of another history, though its number may fit
        async with asyncio.timeout(ANSWER_WITHIN):
            await self._register.acknowledge(connection, standing)
        self._written = standing


def _now() -> float:
    return asyncio.get_running_loop().time()
