"""The embedded PostgreSQL is private, survives every kind of end, and needs no short path."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest

from tidegate.base.errors import StoreError
from tidegate.stores.open import database_for, embedded_database, running
from tidegate.stores.postgres import (
    PostgresPlace,
    clear_stale_lock,
    ensure_database,
    postgres_place,
    postgres_spec,
)


def _insert(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
        connection.execute("INSERT INTO kept VALUES (1)")


def _count(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert row is not None
    return int(row[0])


def test_it_is_version_18_on_a_private_socket_and_no_port(postgres_server: PostgresPlace) -> None:
    with psycopg.connect(postgres_server.url("postgres")) as connection:
        rows = [
            connection.execute(f"SHOW {name}").fetchone()
            for name in ("server_version_num", "listen_addresses", "fsync")
        ]
    version, addresses, fsync = (row[0] for row in rows if row)
    assert (version[:2], addresses, fsync) == ("18", "", "on")
    assert stat.S_IMODE(postgres_server.sockets.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes user")
def test_as_root_it_runs_as_another_user(postgres_server: PostgresPlace) -> None:
    pid = int((postgres_server.data / "postmaster.pid").read_text().split("\n")[0])
    assert psutil.Process(pid).uids().effective != 0


def test_data_survives_a_kill_9_of_server_and_of_its_starter(app_folder: Path) -> None:
    """given a server; when it is killed -9, and later its parent is; then it starts again at once,
    with a lock file left behind whose process id now belongs to somebody else, and has all data."""
    with embedded_database(app_folder) as url:
        _insert(url)
        data = postgres_place(app_folder).data
        os.kill(int((data / "postmaster.pid").read_text().split("\n")[0]), signal.SIGKILL)
    stale = (data / "postmaster.pid").read_text().split("\n")
    (data / "postmaster.pid").write_text("\n".join([str(os.getpid()), *stale[1:]]))
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tidegate.stores.open import embedded_database\n"
        f"with embedded_database(Path({str(app_folder)!r})):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    with embedded_database(app_folder) as url:
        assert _count(url) == 1


def test_a_lock_file_of_nobody_or_of_a_stranger_is_removed(tmp_path: Path) -> None:
    lock = tmp_path / "postmaster.pid"
    for content in (str(os.getpid()), "4194305", "torn", ""):
        lock.write_text(f"{content}\n{tmp_path}\n")
        clear_stale_lock(tmp_path)
        assert not lock.exists()
    clear_stale_lock(tmp_path)


def test_a_path_too_long_for_a_socket_is_no_problem(app_folder: Path) -> None:
    state = app_folder / ("long-" * 20) / "with space, comma and 'quote'"
    state.mkdir(parents=True)
    with running(postgres_spec(state)):
        place = postgres_place(state)
        assert place.sockets != place.data
        assert stat.S_IMODE(place.sockets.stat().st_mode) == 0o700
        _insert(ensure_database(place))
        assert _count(place.url()) == 1
    place.sockets.rmdir()


def test_data_of_another_version_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("16\n")
    with pytest.raises(StoreError) as raised:
        postgres_place(tmp_path)
    assert raised.value.code == "postgres_data_version"


def test_an_interrupted_initdb_leaves_no_half_made_data(app_folder: Path) -> None:
    part = app_folder / "postgres" / "data.part"
    part.mkdir(parents=True)
    (part / "PG_VERSION").write_text("18\n")
    with embedded_database(app_folder) as url:
        _insert(url)


def test_external_url_wins_and_nothing_is_started(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_DATABASE_URL", database_url)
    with database_for(tmp_path) as url:
        assert url == database_url
    assert list(tmp_path.iterdir()) == []


def test_two_commands_at_once_take_turns(app_folder: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "import psycopg\n"
        "from tidegate.stores.open import database_for\n"
        f"app = Path({str(app_folder)!r})\n"
        "with database_for(app) as url, psycopg.connect(url) as connection:\n"
        "    connection.execute('CREATE TABLE IF NOT EXISTS kept (n int)')\n"
        "    connection.execute('INSERT INTO kept VALUES (1)')\n"
    )
    commands = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [command.wait(60) for command in commands] == [0, 0]
    with database_for(app_folder) as url:
        assert _count(url) == 2
