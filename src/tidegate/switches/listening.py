"""Detection of a dead LISTEN: a connection can live on while no notification comes over it.

Proxies that pool connections, and servers behind them that were exchanged, lose LISTEN without an
error. So a watcher notifies itself, and a notification that does not come back is a dead LISTEN.
"""

from __future__ import annotations

import logging

import psycopg
from psycopg import sql

from tidegate.switches.changes import CHANNEL

log = logging.getLogger("tidegate.switches")

HEARD_WITHIN = 2.0
"""Seconds until the notification to oneself must be back."""
RECONNECT_EVERY = 10.0
"""Seconds between new connections while none of them hears anything; polls go on meanwhile."""

_NOTIFY = "SELECT pg_notify(%s, '')"


class Listener:
    """State of one watcher's LISTEN, over all its connections. Times are those of its loop."""

    def __init__(self) -> None:
        self.alive = True
        """Whether notifications arrive, as far as is known."""
        self._sent: float | None = None
        self._renewed: float | None = None
        self._own = ""

    async def listen(self, connection: psycopg.AsyncConnection) -> None:
        """Listen on a new connection."""
        self._sent = None
        self._own = f"tidegate_echo_{connection.info.backend_pid}"
        for channel in (CHANNEL, self._own):
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))

    async def wait(self, connection: psycopg.AsyncConnection, pause: float) -> bool:
        """Wait ``pause`` seconds at most; whether a change was notified."""
        changed = False
        async for found in connection.notifies(timeout=pause, stop_after=1):
            changed = changed or found.channel == CHANNEL
            self._heard()
        return changed

    async def echo(self, connection: psycopg.AsyncConnection, now: float) -> None:
        """Notify oneself, unless that is under way."""
        if self._sent is None:
            await connection.execute(_NOTIFY, (self._own,))
            self._sent = now

    def renew(self, now: float) -> bool:
        """Whether LISTEN is dead and another connection should be tried now."""
        if self._sent is None or now - self._sent < HEARD_WITHIN:
            return False
        if self.alive:
            log.warning("degraded: notifications of PostgreSQL do not arrive: switches are polled")
            self.alive = False
        if self._renewed is not None and now - self._renewed < RECONNECT_EVERY:
            return False
        self._renewed = now
        return True

    def _heard(self) -> None:
        self._sent = None
        if not self.alive:
            log.warning("recovered: notifications of PostgreSQL arrive again")
        self.alive = True
