"""Switches flipped while the soak runs, each waited for: nothing of them may stay either."""

from __future__ import annotations

import asyncio

import psycopg
from psycopg import sql

from tidegate.switches import Cap, Change, Kill
from tidegate.switches.workers import ACKS, wait_acknowledged
from tidegate.switches.write import Author, kill, lift_cap, lift_kill, set_cap

_WAIT = 5.0
_ME = Author(by="soak")


class Flips:
    """Counts of what was flipped, and of what not every worker acknowledged."""

    def __init__(self, database_url: str) -> None:
        self.made = self.unheard = 0
        self._url = database_url

    async def run(self, every: float) -> None:
        """A flip each ``every`` seconds, until cancelled."""
        while True:
            await asyncio.sleep(every)
            await asyncio.to_thread(self.flip)

    def flip(self) -> None:
        """A cap and a kill that no request meets, put in force and lifted again."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(ACKS)))
            self._wait(connection, set_cap(connection, Cap(route="ask", output_tokens=180), _ME))
            long = Kill(kind="prompts", name="", tokens=100_000)
            self._wait(connection, kill(connection, long, _ME))
            self._wait(connection, lift_kill(connection, "prompts", "", _ME))
            self._wait(connection, lift_cap(connection, "ask", _ME))

    def _wait(self, connection: psycopg.Connection, change: Change) -> None:
        self.made += 1
        self.unheard += not wait_acknowledged(connection, change, _WAIT).complete
