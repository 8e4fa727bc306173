"""Real engines for every test: one PostgreSQL and one Valkey a session, started on demand."""

from __future__ import annotations

import itertools
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import settings
from psycopg import sql

from tidegate.stores.migrate import migrate
from tidegate.stores.open import running
from tidegate.stores.postgres import PostgresPlace, ensure_database, postgres_place, postgres_spec
from tidegate.stores.valkey import valkey_socket, valkey_spec

# The same inputs each time, and no clock on an example: a busy machine breaks no test. Other inputs
# come with make fuzz.
settings.register_profile("fixed", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("fixed")

TEMPLATE = "tidegate_template"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def engines_folder() -> Iterator[Path]:
    """A short folder for the session's engines, removed at the end whatever happened."""
    folder = Path(tempfile.mkdtemp(prefix="tg-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def app_folder() -> Iterator[Path]:
    """A folder for an app that runs its own embedded engines, removed at the end.

    Not under tmp_path: pytest closes the folder above that to other users each time a session of
    it starts, and as root PostgreSQL runs as another user.
    """
    folder = Path(tempfile.mkdtemp(prefix="tg-app-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(engines_folder: Path) -> Iterator[PostgresPlace]:
    """The session's PostgreSQL, with a migrated template database."""
    with running(postgres_spec(engines_folder)):
        place = postgres_place(engines_folder)
        migrate(ensure_database(place, TEMPLATE))
        yield place


@pytest.fixture
def empty_database_url(postgres_server: PostgresPlace) -> Iterator[str]:
    """URL of a fresh database without any table."""
    yield from _fresh_database(postgres_server, "template0")


@pytest.fixture
def database_url(postgres_server: PostgresPlace) -> Iterator[str]:
    """URL of a fresh migrated database, dropped after the test with whoever is still connected."""
    yield from _fresh_database(postgres_server, TEMPLATE)


@pytest.fixture(scope="session")
def valkey_server(engines_folder: Path) -> Iterator[Path]:
    """The socket of the session's Valkey."""
    with running(valkey_spec(engines_folder)):
        yield valkey_socket(engines_folder)


@pytest.fixture
def valkey_url(valkey_server: Path) -> str:
    """URL of the session's Valkey, emptied for this test."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(valkey_server))
        connection.sendall(b"FLUSHALL\r\n")
        assert connection.recv(16).startswith(b"+OK")
    return f"unix://{valkey_server}"


def _fresh_database(place: PostgresPlace, template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    with psycopg.connect(place.url("postgres"), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        try:
            yield place.url(name)
        finally:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )
