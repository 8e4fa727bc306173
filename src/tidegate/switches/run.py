"""Bring the keys to a gateway worker and keep them fresh, whatever happens to PostgreSQL.

A change is seen through NOTIFY within milliseconds; a poll every second is the net below it. While
PostgreSQL is away the last snapshot stays in force, also over a restart: it is kept in a file.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import psycopg
from psycopg import sql

from tidegate.base.runtime import write_private
from tidegate.switches.keys import CHANNEL, SNAPSHOT_QUERY, VERSION_QUERY, snapshot_of
from tidegate.switches.rules import KeySnapshot

log = logging.getLogger("tidegate.switches")

POLL = 1.0
"""Seconds between polls."""
ANSWER_WITHIN = 3.0
"""Seconds until a connection that does not answer counts as lost."""
LONGEST_RETRY = 5.0
FIRST_WITHIN = 0.3
"""Seconds a start waits for PostgreSQL before it takes the kept snapshot: meanwhile nobody is let
in, and a PostgreSQL that hangs would make that seconds."""

OnChange = Callable[[KeySnapshot], None]


async def watch(database_url: str, on_change: OnChange, *, fallback_file: Path) -> None:
    """Call ``on_change`` with the first snapshot and with each new one, until cancelled.

    When PostgreSQL is away at the start, or slow, the snapshot in ``fallback_file`` (mode 0600,
    replaced atomically) is the first; without that file the first comes when PostgreSQL does.
    """
    watcher = _Watcher(database_url, on_change, fallback_file)
    waited = asyncio.get_running_loop().call_later(FIRST_WITHIN, watcher.start_with_kept)
    retry = 0.0
    try:
        while True:
            try:
                await watcher.follow()
            except (psycopg.Error, OSError) as error:
                watcher.lost(error)
            retry = 0.1 if watcher.took_connection() else min(LONGEST_RETRY, 2 * retry)
            await asyncio.sleep(retry * (0.5 + random.random() / 2))
    finally:
        waited.cancel()


class _Watcher:
    """One worker's view of the switches: the last snapshot, and whether PostgreSQL is there."""

    def __init__(self, database_url: str, on_change: OnChange, fallback_file: Path) -> None:
        self._url = database_url
        self._on_change = on_change
        self._file = fallback_file
        self._last: KeySnapshot | None = None
        self._degraded = False
        self._connected = True

    async def follow(self) -> None:
        """Connect, listen, and pass changes on until the connection is lost."""
        async with asyncio.timeout(ANSWER_WITHIN):
            connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
        async with connection:
            # LISTEN first: what changes after the snapshot is then notified
            async with asyncio.timeout(ANSWER_WITHIN):
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
            await self._take(connection)
            self._recovered()
            while True:
                async for _ in connection.notifies(timeout=POLL, stop_after=1):
                    pass
                if await self._version(connection) != (self._last and self._last.version):
                    await self._take(connection)

    def lost(self, error: Exception) -> None:
        """Say once that PostgreSQL is away; without any snapshot, take the one that was kept."""
        if not self._degraded:
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            log.warning("degraded: keys stay as they were, PostgreSQL is away: %s", why)
        self._degraded = True
        self.start_with_kept()

    def start_with_kept(self) -> None:
        """Take the snapshot that was kept, where there is none yet."""
        if self._last is None and (kept := _read(self._file)) is not None:
            self._last = kept
            self._on_change(kept)

    def took_connection(self) -> bool:
        """Whether PostgreSQL was reached since this was last asked; true the first time."""
        connected, self._connected = self._connected, False
        return connected

    def _recovered(self) -> None:
        if self._degraded:
            log.warning("recovered: keys are fresh again")
        self._degraded, self._connected = False, True

    async def _version(self, connection: psycopg.AsyncConnection) -> int:
        async with asyncio.timeout(ANSWER_WITHIN):
            row = await (await connection.execute(VERSION_QUERY)).fetchone()
        return int(row[0]) if row else 0

    async def _take(self, connection: psycopg.AsyncConnection) -> None:
        async with asyncio.timeout(ANSWER_WITHIN):
            rows = await (await connection.execute(SNAPSHOT_QUERY)).fetchall()
        fresh = snapshot_of(rows)
        if fresh != self._last:
            self._last = fresh
            self._on_change(fresh)
            _keep(self._file, fresh)


def _keep(path: Path, value: KeySnapshot) -> None:
    """Keep the snapshot for a start without PostgreSQL; a full disk costs that, nothing more."""
    try:
        write_private(path, msgspec.json.encode(value))
    except OSError as error:
        log.warning("degraded: the keys cannot be kept in %s: %s", path, error)


def _read(path: Path) -> KeySnapshot | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=KeySnapshot)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.warning("the kept keys in %s cannot be read: %s", path, error)
        return None
