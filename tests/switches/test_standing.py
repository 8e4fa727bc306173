"""A worker that must load something first says so as soon as it has it, not with the next poll."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest
import uvloop

from tidegate.switches import KeyTable, Place, Standing, SwitchSnapshot, list_workers, watch
from tidegate.switches.changes import changing


class Slow:
    """A taker that has a snapshot in force a moment after it was given."""

    def __init__(self) -> None:
        self._standing: Standing | None = None

    def take(self, snapshot: SwitchSnapshot, keys: KeyTable) -> None:
        asyncio.get_running_loop().call_later(0.1, self._loaded, snapshot.version)

    def _loaded(self, version: int) -> None:
        self._standing = Standing(version=version)

    def standing(self) -> Standing | None:
        return self._standing


def test_what_was_loaded_is_acknowledged_before_the_next_poll(
    monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path
) -> None:
    monkeypatch.setattr("tidegate.switches.run.POLL", 60.0)
    place = Place(gateway="g", name="w", host="h")

    async def scenario() -> None:
        work = watch(database_url, Slow(), fallback_file=tmp_path / "switches.json", place=place)
        task = asyncio.create_task(work)
        with psycopg.connect(database_url, autocommit=True) as connection:
            try:
                await acknowledged(connection, 0)
                with changing(connection, "test") as draft:
                    pass
                await acknowledged(connection, draft.version)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    uvloop.run(scenario())


async def acknowledged(connection: psycopg.Connection, version: int) -> None:
    async with asyncio.timeout(20):
        while [one.version for one in list_workers(connection)] != [version]:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
