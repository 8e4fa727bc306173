"""A change reaches a watcher within a second; PostgreSQL being away changes nothing else."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import uvloop

from tidegate.base.supervision import Supervisor
from tidegate.stores.migrate import migrate
from tidegate.stores.postgres import ensure_database, postgres_place, postgres_spec
from tidegate.switches import KeyTable, Plain, SwitchSnapshot, create_key, revoke_key, watch

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return uvloop.run if request.param == "uvloop" else asyncio.run


class Seen:
    """The snapshots a watcher passed on, awaitable, and the keys beside the last one."""

    def __init__(self) -> None:
        self.all: list[SwitchSnapshot] = []
        self.keys = KeyTable()
        self._news = asyncio.Event()

    def __call__(self, snapshot: SwitchSnapshot, keys: KeyTable) -> None:
        self.all.append(snapshot)
        self.keys = keys
        self._news.set()

    def revoked(self, key_id: str) -> bool:
        found = self.keys.get(key_id)
        return found is not None and found.revoked

    async def until(self, holds: Callable[[SwitchSnapshot], bool], within: float = 10.0) -> None:
        async with asyncio.timeout(within):
            while not (self.all and holds(self.all[-1])):
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def watching(url: str, file: Path) -> AsyncIterator[Seen]:
    seen = Seen()
    task = asyncio.create_task(watch(url, Plain(seen), fallback_file=file))
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_a_revocation_is_seen_at_once(run: Run, database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "switches.json"

    async def scenario() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            made = create_key(connection, name="web")
            async with watching(database_url, file) as seen:
                await seen.until(lambda now: now.version == 1)
                await asyncio.sleep(0.3)  # into the wait for a notification
                started = time.monotonic()
                revoke_key(connection, made.key.id)
                await seen.until(lambda _: seen.revoked(made.key.id))
                assert time.monotonic() - started < 3

    run(scenario())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_bytes().count(b'"revoked":true') == 1


def test_a_change_without_a_notification_is_polled(
    run: Run, database_url: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            async with watching(database_url, tmp_path / "switches.json") as seen:
                await seen.until(lambda now: now.version == 0)
                connection.execute("UPDATE switches_version SET version = 7")
                await seen.until(lambda now: now.version == 7, within=3.0)

    run(scenario())


def test_postgresql_killed_while_watching_then_back(
    app_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """given a watcher; when PostgreSQL is killed -9; then the keys stay, and are fresh again after
    its restart, with one line for each; and a watcher that starts meanwhile has the kept ones."""

    async def scenario() -> None:
        file = app_folder / "switches.json"
        async with Supervisor() as supervisor:
            server = supervisor.add(postgres_spec(app_folder))
            await server.ready()
            url = ensure_database(postgres_place(app_folder))
            migrate(url)
            with psycopg.connect(url) as connection:
                made = create_key(connection, name="web")
            async with watching(url, file) as seen:
                await seen.until(lambda now: now.version == 1)
                killed = server.state.pid
                assert killed is not None
                os.kill(killed, signal.SIGKILL)
                while server.state.pid == killed:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                async with watching(url, file) as late:
                    await late.until(lambda now: now.version == 1)
                while server.state.phase != "ready":  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                assert len(seen.all) == 1
                with psycopg.connect(url) as connection:
                    revoke_key(connection, made.key.id)
                await seen.until(lambda _: seen.revoked(made.key.id))

    caplog.set_level(logging.WARNING, "tidegate.switches")
    asyncio.run(scenario())
    ours = [record.getMessage() for record in caplog.records if record.name == "tidegate.switches"]
    assert sum("recovered" in line for line in ours) == 1
    assert sum("degraded" in line for line in ours) == 2  # one for each of the two watchers


def test_a_start_without_postgresql_uses_the_kept_switches(
    run: Run, database_url: str, tmp_path: Path
) -> None:
    file, away = tmp_path / "switches.json", f"postgresql://postgres@/x?host={tmp_path}"

    async def scenario() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            create_key(connection, name="web")
        async with watching(database_url, file) as seen:
            await seen.until(lambda now: now.version == 1)
        async with watching(away, file) as again:
            await again.until(lambda now: now == seen.all[-1])
        file.write_bytes(b"{torn")
        async with watching(away, file) as blind:
            await asyncio.sleep(0.2)
            assert blind.all == []

    run(scenario())


def test_a_start_with_a_postgresql_that_hangs_uses_the_kept_switches_at_once(
    run: Run, database_url: str, tmp_path: Path
) -> None:
    """given a server that takes the connection and says nothing; then nobody waits for it."""
    file = tmp_path / "switches.json"

    async def scenario() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            create_key(connection, name="web")
        async with watching(database_url, file) as seen:
            await seen.until(lambda now: now.version == 1)
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            url = f"postgresql://postgres@127.0.0.1:{silent.getsockname()[1]}/x"
            async with watching(url, file) as again:
                await again.until(lambda now: now == seen.all[-1], within=1.5)

    run(scenario())
