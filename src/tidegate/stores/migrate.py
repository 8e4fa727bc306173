"""Database migrations: numbered SQL files, applied forward only, each once, in one transaction.

A file is ``migrations/NNNN_name.sql``. Rooms own ranges of numbers (0001 switches, 0010 ledger);
what is not applied yet is applied in the order of the numbers. An applied file never changes:
its sha256 is recorded and held against the file at every start.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from importlib.resources.abc import Traversable

import msgspec
import psycopg

from tidegate.base import StoreError, sha256

_LOCK = 0x7469646567617465
"""Key of the advisory lock: ``tidegate`` in ASCII."""
_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_TABLE = """
CREATE TABLE IF NOT EXISTS migrations (
    number      integer PRIMARY KEY,
    name        text NOT NULL,
    sha256      text NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now()
)"""


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """One file: its number, its name, and its text."""

    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return sha256(self.sql)


def shipped_migrations(folder: Traversable | None = None) -> tuple[Migration, ...]:
    """The migrations of this program (or of another ``folder``), in the order of their numbers."""
    folder = folder or resources.files("tidegate.stores").joinpath("migrations")
    found: dict[int, Migration] = {}
    for file in folder.iterdir():
        if not file.name.endswith(".sql"):
            continue
        match = _NAME.fullmatch(file.name)
        if match is None or int(match[1]) in found:
            raise StoreError(
                "migration_name_invalid",
                f"{file.name} is not NNNN_name.sql with a number of its own",
                cure="rename it",
            )
        number = int(match[1])
        found[number] = Migration(number=number, name=match[2], sql=file.read_text("utf-8"))
    return tuple(found[number] for number in sorted(found))


def migrate(database_url: str, migrations: Sequence[Migration] | None = None) -> tuple[str, ...]:
    """Apply what is not applied yet to the database; the names of what was applied now.

    Safe with several processes at once. StoreError ``database_unreachable``, ``database_refused``,
    ``database_newer``, ``migration_changed`` or ``migration_failed``; what was applied before a
    failure stays.
    """
    wanted = shipped_migrations() if migrations is None else tuple(migrations)
    with _locked(database_url) as connection:
        connection.execute(_TABLE)
        rows = connection.execute("SELECT number, sha256 FROM migrations").fetchall()
        applied = {int(number): str(digest) for number, digest in rows}
        _refuse_foreign(applied, wanted)
        todo = [migration for migration in wanted if migration.number not in applied]
        if todo:
            _ensure_vector(connection)
        for migration in todo:
            _apply(connection, migration)
    return tuple(f"{migration.number:04d}_{migration.name}" for migration in todo)


@contextmanager
def _locked(database_url: str) -> Iterator[psycopg.Connection]:
    """A connection that holds the advisory lock, so that one process at a time migrates.

    The lock is the session's: it ends with the connection, also when this process is killed."""
    try:
        connection = psycopg.connect(database_url, autocommit=True, connect_timeout=10)
    except psycopg.Error as error:
        raise _unreachable(error) from None
    try:
        with connection:
            connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
            yield connection
    except psycopg.OperationalError as error:
        raise _unreachable(error) from None
    except psycopg.Error as error:
        raise StoreError(
            "database_refused",
            f"PostgreSQL does not let us migrate: {_first_line(error)}",
            cure="give the user of the URL the right to create tables in its database",
        ) from error


def _refuse_foreign(applied: dict[int, str], wanted: Sequence[Migration]) -> None:
    known = {migration.number: migration for migration in wanted}
    if unknown := sorted(applied.keys() - known.keys()):
        raise StoreError(
            "database_newer",
            f"the database has migration {unknown[-1]:04d}, which this program does not know",
            cure="run the version of tidegate that wrote it, or a newer one",
        )
    for number, digest in sorted(applied.items()):
        if known[number].sha256 != digest:
            raise StoreError(
                "migration_changed",
                f"{number:04d}_{known[number].name}.sql changed after it was applied",
                cure="restore the file as it was and put the change into a new migration",
            )


def _ensure_vector(connection: psycopg.Connection) -> None:
    """pgvector, where the server has it and we may create it; only what stores vectors needs it."""
    query = "SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"
    if connection.execute(query).fetchone() is None:
        return
    try:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except psycopg.errors.InsufficientPrivilege:
        pass


def _apply(connection: psycopg.Connection, migration: Migration) -> None:
    try:
        with connection.transaction():
            connection.execute(migration.sql.encode())
            connection.execute(
                "INSERT INTO migrations (number, name, sha256) VALUES (%s, %s, %s)",
                (migration.number, migration.name, migration.sha256),
            )
    except psycopg.Error as error:
        raise StoreError(
            "migration_failed",
            f"{migration.number:04d}_{migration.name}.sql: {_first_line(error)}",
            cure="mend what the database says and run the same command again; nothing of it stays",
        ) from error


def _unreachable(error: psycopg.Error) -> StoreError:
    return StoreError(
        "database_unreachable",
        f"PostgreSQL cannot be reached: {_first_line(error)}",
        cure="check TIDEGATE_DATABASE_URL and that the server runs",
    )


def _first_line(error: psycopg.Error) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
