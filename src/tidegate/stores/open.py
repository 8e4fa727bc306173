"""A migrated database for the duration of a command, wherever PostgreSQL is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tidegate.base import (
    STATE_FOLDER,
    Child,
    ChildSpec,
    LockHeld,
    RuntimeStateError,
    StoreError,
    UsageError,
    file_lock,
    read_runtime,
)
from tidegate.stores.migrate import migrate
from tidegate.stores.postgres import ensure_database, postgres_place, postgres_spec
from tidegate.stores.settings import read_store_settings

_WAIT = 30.0
"""Seconds that a command waits for another one to release the embedded PostgreSQL."""


@contextmanager
def database_for(app: Path) -> Iterator[str]:
    """The URL of the app's migrated database, valid inside the block.

    ``TIDEGATE_DATABASE_URL`` when it is set; else what ``tidegate up`` runs in the folder; else an
    embedded PostgreSQL that is started now and stopped at the end.
    """
    url = read_store_settings().database_url or _running(app)
    if url is not None:
        migrate(url)
        yield url
        return
    try:
        with postgres_lock(app / STATE_FOLDER, give_up=lambda: _running(app) is not None):
            # Asked again under the lock: ``tidegate up`` may have started while we waited.
            if (url := _running(app)) is None:
                with embedded_database(app / STATE_FOLDER) as url:
                    yield url
                return
    except LockHeld as held:
        # Also when ``tidegate up``, which holds the lock, runs by now: its server is used then.
        if (url := _running(app)) is None:
            raise StoreError(
                "postgres_in_use",
                f"process {held.pid} has used the app's PostgreSQL for {_WAIT:g} s",
                cure="wait for that command to end, or stop it",
            ) from None
    yield url


@contextmanager
def connected(app: Path) -> Iterator[psycopg.Connection]:
    """A connection to the app's migrated database in autocommit: each statement is its own.

    Errors: those of ``database_for``; StoreError ``database_unreachable`` also when the server goes
    away in between. UsageError ``value_invalid``.
    """
    with database_for(app) as url:
        try:
            with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
                yield connection
        except psycopg.OperationalError as error:
            raise StoreError(
                "database_unreachable",
                f"PostgreSQL cannot be reached: {str(error).strip().splitlines()[0]}",
                cure="check that it runs; a change that was under way may be in force: "
                "tidegate switches",
            ) from None
        except (psycopg.DataError, UnicodeEncodeError) as error:
            raise UsageError(
                "value_invalid",
                f"a value cannot be kept: {str(error).splitlines()[0]}",
                cure="leave out control characters and numbers out of range",
            ) from None


@contextmanager
def postgres_lock(state: Path, *, give_up: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """The right to run the embedded PostgreSQL of ``state``; LockHeld after half a minute."""
    with file_lock(state / "run" / "postgres.lock", wait=_WAIT, give_up=give_up):
        yield


@contextmanager
def embedded_database(state: Path) -> Iterator[str]:
    """Run the embedded PostgreSQL of ``state`` and give the URL of its migrated database."""
    spec = postgres_spec(state)
    with running(spec):
        url = ensure_database(postgres_place(state))
        migrate(url)
        yield url


@contextmanager
def running(spec: ChildSpec) -> Iterator[Child]:
    """Run an engine until the block ends, without supervision; it is ready inside the block."""
    if spec.prepare is not None:
        spec.prepare()
    child = Child(spec)
    try:
        child.wait_ready()
        yield child
    finally:
        child.stop()


def _running(app: Path) -> str | None:
    try:
        return read_runtime(app).database_url
    except RuntimeStateError:
        return None
