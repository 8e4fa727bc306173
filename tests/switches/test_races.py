"""Changes that cross each other, or a worker's reconnection: what it says it runs, it runs."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import uvloop

from tests.switches.readers import (
    SwallowingProxy,
    acknowledged,
    back_up,
    restore,
    until,
    watched,
    worker,
)
from tidegate.switches import (
    Author,
    KeyTable,
    Kill,
    create_key,
    key_records,
    kill,
    lift_kill,
    list_changes,
    revoke_key,
    snapshot,
    wait_acknowledged,
)
from tidegate.switches.kept import read_kept

ME = Author(by="test")
CUT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def test_changes_at_once_are_all_in_force(database_url: str, tmp_path: Path) -> None:
    """given four writers at once, two of them for the same route; then what the worker says it
    runs, at any moment, it runs, and in the end that is everything."""

    def write(number: int) -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            for turn in range(10):
                made = create_key(connection, name=f"{number} {turn}")
                kill(connection, Kill(kind="route", name=f"r{number % 3}", tokens=None), ME)
                revoke_key(connection, made.key.id)

    async def scenario() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            async with watched(database_url, tmp_path / "switches.json") as gate:
                await until(acknowledged(connection, 0))
                loop = asyncio.get_running_loop()
                with ThreadPoolExecutor(4) as writers:
                    writing = [loop.run_in_executor(writers, write, n) for n in range(4)]
                    while not all(one.done() for one in writing):
                        found = worker(connection)
                        assert found is not None
                        assert gate.last is not None
                        assert (found.version or 0) <= gate.last.version
                        await asyncio.sleep(0.005)
                    await asyncio.gather(*writing)
                await until(acknowledged(connection, 120))
                assert gate.runs_all_of(connection)
                assert len(gate.keys) == 40

    uvloop.run(scenario())


def test_a_change_while_the_worker_reconnects_is_not_missed(
    database_url: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            made = create_key(connection, name="web")
            async with watched(database_url, tmp_path / "switches.json") as gate:
                for number in range(5):
                    await until(acknowledged(connection, 1 + 2 * number))
                    connection.execute(CUT)
                    create_key(connection, name=f"cut {number}")
                    await asyncio.sleep(0.02 * number)  # into another part of the reconnection
                    kill(connection, Kill(kind="route", name=f"r{number}"), ME)
                await until(acknowledged(connection, 11))
                assert gate.runs_all_of(connection)
                found = gate.keys.find(made.token, now=0.0)
                assert not isinstance(found, str)

    uvloop.run(scenario())


def test_missed_notifications_are_caught_up_in_one_difference(
    monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path
) -> None:
    """given a worker whose notifications are swallowed, and which has not noticed; when several
    changes come; then a poll brings them all, and the last is acknowledged."""
    monkeypatch.setattr("tidegate.switches.listening.HEARD_WITHIN", 600.0)

    async def scenario() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            made = create_key(connection, name="web")
            async with (
                SwallowingProxy(database_url) as proxy,
                watched(proxy.url, tmp_path / "switches.json") as gate,
            ):
                await until(acknowledged(connection, 1))
                kill(connection, Kill(kind="route", name="r"), ME)
                revoke_key(connection, made.key.id)
                lift_kill(connection, "route", "r", ME)
                kill(connection, Kill(kind="route", name="s"), ME)
                (last, *_) = list_changes(connection, 1)
                outcome = await asyncio.to_thread(wait_acknowledged, connection, last, 20.0)
                assert (outcome.complete, last.version) == (True, 5)
                assert gate.runs_all_of(connection)
                assert gate.keys.find(made.token, now=0.0) == "key_revoked"

    uvloop.run(scenario())


def test_a_dead_listen_is_noticed_and_said_and_mends(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    database_url: str,
    tmp_path: Path,
) -> None:
    """given a connection over which no notification comes; then the worker tries others, its row
    says so, switches arrive all the same, and the row says when notifications are back."""
    monkeypatch.setattr("tidegate.switches.listening.HEARD_WITHIN", 0.3)
    monkeypatch.setattr("tidegate.switches.listening.RECONNECT_EVERY", 0.5)
    monkeypatch.setattr("tidegate.switches.run.BEAT", 0.1)
    caplog.set_level(logging.WARNING, "tidegate.switches")

    async def scenario() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:

            def says(listening: bool) -> bool:
                found = worker(connection)
                return found is not None and found.listening is listening

            async with (
                SwallowingProxy(database_url) as proxy,
                watched(proxy.url, tmp_path / "switches.json") as gate,
            ):
                proxy.swallow = False
                await until(acknowledged(connection, 0))
                await asyncio.sleep(0.5)
                assert (says(True), proxy.connections) == (True, 1)
                proxy.swallow = True
                await until(lambda: says(False) and proxy.connections >= 3)
                kill(connection, Kill(kind="route", name="r"), ME)
                await until(acknowledged(connection, 1))
                assert gate.runs_all_of(connection)
                proxy.swallow = False
                await until(lambda: says(True))
                still = proxy.connections
                await asyncio.sleep(1.0)
                assert proxy.connections == still

    uvloop.run(scenario())
    told = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert told == ["degraded", "recovered"]


@pytest.mark.parametrize("later", [0, 3, 7], ids=["lower", "equal", "higher"])
def test_versions_of_a_restored_database_are_acknowledged_anew(
    database_url: str, tmp_path: Path, later: int
) -> None:
    """given a worker that acknowledged version 4; when a backup of version 1 takes the database's
    place; then its row says nothing until the worker runs all of the restored switches, though it
    still says that it runs 4; and the kept files are those of the restored database."""
    file = tmp_path / "switches.json"
    with psycopg.connect(database_url, autocommit=True) as connection:
        create_key(connection, name="first")
    backup = back_up(database_url)

    async def scenario() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            create_key(connection, name="lost")
            kill(connection, Kill(kind="route", name="lost"), ME)
            revoke_key(connection, "first")
        async with watched(database_url, file) as gate:
            with psycopg.connect(database_url, autocommit=True) as connection:
                await until(acknowledged(connection, 4))
            with psycopg.connect(backup, autocommit=True) as connection:
                for number in range(later):
                    create_key(connection, name=f"new {number}")
            gate.open = False
            before = gate.last
            restore(database_url, backup)
            with psycopg.connect(database_url, autocommit=True) as connection:
                await until(lambda: gate.last is not before)
                await asyncio.sleep(0.5)
                found, standing = worker(connection), gate.standing()
                assert found is not None
                assert standing is not None
                assert (found.version, standing.version) == (None, 4)
                gate.open = True
                await until(acknowledged(connection, 1 + later))
                assert gate.runs_all_of(connection)
                await until(lambda: kept_version(file) == 1 + later)

    uvloop.run(scenario())
    found = read_kept(file)
    assert found is not None
    with psycopg.connect(database_url, autocommit=True) as connection:
        assert found.snapshot == snapshot(connection)
        assert found.keys == KeyTable(key_records(connection))


def test_what_is_not_in_force_is_not_acknowledged(database_url: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            async with watched(database_url, tmp_path / "switches.json") as gate:
                await until(acknowledged(connection, 0))
                gate.open = False
                for number in range(3):
                    kill(connection, Kill(kind="route", name=f"r{number}"), ME)
                    await until(lambda n=number: gate.last is not None and gate.last.version > n)
                    await asyncio.sleep(0.1)
                    assert acknowledged(connection, 0)()
                connection.execute(CUT)  # nor after a reconnection
                await until(acknowledged(connection, 0))
                await asyncio.sleep(0.3)
                assert acknowledged(connection, 0)()
                gate.open = True
                await until(acknowledged(connection, 3))

    uvloop.run(scenario())


def kept_version(file: Path) -> int:
    found = read_kept(file)
    return -1 if found is None or found.snapshot is None else found.snapshot.version
