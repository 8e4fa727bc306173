"""Bring the switches to a gateway worker and keep them fresh, whatever happens to PostgreSQL.

A change is seen through NOTIFY within milliseconds; a poll every second is the net below it. What
is in force is written back, so that whoever made the change knows. While PostgreSQL is away the
last snapshot stays in force, also over a restart: it is kept in a file.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec
import psycopg
from psycopg import sql

from tidegate.base import write_private
from tidegate.switches.changes import CHANNEL
from tidegate.switches.snapshot import SNAPSHOT_QUERY, VERSION_QUERY, snapshot_of
from tidegate.switches.values import Standing, SwitchSnapshot
from tidegate.switches.workers import Place, Register

log = logging.getLogger("tidegate.switches")

POLL = 1.0
"""Seconds between polls, and between beats."""
POLL_WHILE_LOADING = 0.05
ANSWER_WITHIN = 3.0
"""Seconds until a connection that does not answer counts as lost."""
LONGEST_RETRY = 5.0
FIRST_WITHIN = 0.3
"""Seconds a start waits for PostgreSQL before it takes the kept snapshot: meanwhile nobody is let
in, and a PostgreSQL that hangs would make that seconds."""

OnChange = Callable[[SwitchSnapshot], None]


class Taker(Protocol):
    """Who runs by the switches."""

    def take(self, snapshot: SwitchSnapshot) -> None:
        """In force from the next request on; what must be loaded first follows by itself."""
        ...

    def standing(self) -> Standing | None:
        """The newest version that is wholly in force; None before the first."""
        ...


class Plain:
    """A taker that has nothing to load: a function that is told each snapshot."""

    def __init__(self, on_change: OnChange) -> None:
        self._on_change = on_change
        self._version: int | None = None

    def take(self, snapshot: SwitchSnapshot) -> None:
        self._version = snapshot.version
        self._on_change(snapshot)

    def standing(self) -> Standing | None:
        return None if self._version is None else Standing(version=self._version)


async def watch(
    database_url: str, taker: Taker, *, fallback_file: Path, place: Place | None = None
) -> None:
    """Give ``taker`` the first snapshot and each new one, until cancelled; with a ``place``, write
    what it runs there, and a beat every second.

    When PostgreSQL is away at the start, or slow, the snapshot in ``fallback_file`` (mode 0600,
    replaced atomically) is the first; without that file the first comes when PostgreSQL does.
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


class _Watcher:
    """One worker's view of the switches: the last snapshot, and whether PostgreSQL is there."""

    def __init__(
        self, database_url: str, taker: Taker, fallback_file: Path, place: Place | None
    ) -> None:
        self._url = database_url
        self._taker = taker
        self._file = fallback_file
        self._register = None if place is None else Register(place)
        self._last: SwitchSnapshot | None = None
        self._written: Standing | None = None
        self._degraded = False
        self._connected = True

    async def follow(self) -> None:
        """Connect, listen, and pass changes on until the connection is lost."""
        async with asyncio.timeout(ANSWER_WITHIN):
            connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
        async with connection:
            # LISTEN first: what changes after the snapshot is then notified. The row of this
            # worker stands before the snapshot too: who changes something later sees it and waits.
            async with asyncio.timeout(ANSWER_WITHIN):
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
                await self._enter(connection)
            await self._take(connection)
            self._recovered()
            try:
                while True:
                    await self._step(connection)
            except asyncio.CancelledError:
                await self._leave(connection)
                raise

    async def _step(self, connection: psycopg.AsyncConnection) -> None:
        """Until something is notified or the next poll is due; then take what is new."""
        loading = self._register is not None and self._loading()
        told = False
        pause = POLL_WHILE_LOADING if loading else POLL
        async for _ in connection.notifies(timeout=pause, stop_after=1):
            told = True
        if told or await self._version(connection) != (self._last and self._last.version):
            await self._take(connection)
        else:
            await self._acknowledge(connection)

    def _loading(self) -> bool:
        """Whether the taker has not yet said that it runs what it was given last."""
        standing = self._taker.standing()
        if standing is None or standing != self._written:
            return True
        return self._last is not None and standing.version != self._last.version

    def lost(self, error: Exception) -> None:
        """Say once that PostgreSQL is away; without any snapshot, take the one that was kept."""
        if not self._degraded:
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            log.warning("degraded: keys and switches stay, PostgreSQL is away: %s", why)
        self._degraded = True
        self.start_with_kept()

    def start_with_kept(self) -> None:
        """Take the snapshot that was kept, where there is none yet."""
        if self._last is None and (kept := _read(self._file)) is not None:
            self._last = kept
            self._taker.take(kept)

    def took_connection(self) -> bool:
        """Whether PostgreSQL was reached since this was last asked; true the first time."""
        connected, self._connected = self._connected, False
        return connected

    def _recovered(self) -> None:
        if self._degraded:
            log.warning("recovered: keys and switches are fresh again")
        self._degraded, self._connected = False, True

    async def _enter(self, connection: psycopg.AsyncConnection) -> None:
        self._written = None
        if self._register is not None:
            await self._register.enter(connection)

    async def _leave(self, connection: psycopg.AsyncConnection) -> None:
        """This worker ends: nobody need wait for it."""
        if self._register is not None:
            try:
                async with asyncio.timeout(1.0):
                    await self._register.leave(connection)
            except (psycopg.Error, OSError) as error:
                log.debug("this worker's row stays for a while: %s", error)

    async def _version(self, connection: psycopg.AsyncConnection) -> int:
        """The version of the switches; a beat at the same time."""
        async with asyncio.timeout(ANSWER_WITHIN):
            if self._register is not None:
                version = await self._register.beat(connection)
                if version is None:
                    await self._enter(connection)
                    version = await self._register.beat(connection)
                return version or 0
            row = await (await connection.execute(VERSION_QUERY)).fetchone()
            return int(row[0]) if row else 0

    async def _take(self, connection: psycopg.AsyncConnection) -> None:
        async with asyncio.timeout(ANSWER_WITHIN):
            row = await (await connection.execute(SNAPSHOT_QUERY)).fetchone()
        fresh = snapshot_of(row)
        changed = fresh != self._last
        if changed:
            self._last = fresh
            self._taker.take(fresh)
        await self._acknowledge(connection)
        if changed:  # after the acknowledgement: a slow disk does not hold it up
            _keep(self._file, fresh)

    async def _acknowledge(self, connection: psycopg.AsyncConnection) -> None:
        """Write what is wholly in force here, when that is not what was written."""
        standing = self._taker.standing()
        if self._register is None or standing is None or standing == self._written:
            return
        async with asyncio.timeout(ANSWER_WITHIN):
            await self._register.acknowledge(connection, standing)
        self._written = standing


def _keep(path: Path, value: SwitchSnapshot) -> None:
    """Keep the snapshot for a start without PostgreSQL; a full disk costs that, nothing more."""
    try:
        write_private(path, msgspec.json.encode(value))
    except OSError as error:
        log.warning("degraded: the switches cannot be kept in %s: %s", path, error)


def _read(path: Path) -> SwitchSnapshot | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=SwitchSnapshot)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        log.warning("the kept switches in %s cannot be read: %s", path, error)
        return None
