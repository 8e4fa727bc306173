"""Migrations: once each, in order, under a lock, and never over a changed or newer database."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tidegate.base.errors import StoreError
from tidegate.stores.migrate import Migration, migrate, shipped_migrations

ONE = Migration(number=1, name="one", sql="CREATE TABLE one (id int); INSERT INTO one VALUES (1);")
TWO = Migration(number=2, name="two", sql="CREATE TABLE two (id int)")


def _tables(url: str) -> set[str]:
    query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    with psycopg.connect(url) as connection:
        return {row[0] for row in connection.execute(query)}


def test_applies_what_is_missing_and_nothing_twice(empty_database_url: str) -> None:
    assert migrate(empty_database_url, [ONE]) == ("0001_one",)
    assert migrate(empty_database_url, [ONE, TWO]) == ("0002_two",)
    assert migrate(empty_database_url, [ONE, TWO]) == ()
    assert _tables(empty_database_url) == {"migrations", "one", "two"}


def test_a_lower_number_that_came_later_is_applied(empty_database_url: str) -> None:
    migrate(empty_database_url, [TWO])
    assert migrate(empty_database_url, [ONE, TWO]) == ("0001_one",)


def test_a_failed_migration_leaves_nothing_of_itself(empty_database_url: str) -> None:
    broken = Migration(number=2, name="broken", sql="CREATE TABLE two (id int); SELECT 1/0;")
    with pytest.raises(StoreError) as raised:
        migrate(empty_database_url, [ONE, broken])
    assert raised.value.code == "migration_failed"
    assert "0002_broken.sql: division by zero" in raised.value.message
    assert _tables(empty_database_url) == {"migrations", "one"}
    assert migrate(empty_database_url, [ONE, TWO]) == ("0002_two",)


def test_a_changed_migration_is_refused(empty_database_url: str) -> None:
    migrate(empty_database_url, [ONE])
    changed = Migration(number=1, name="one", sql="CREATE TABLE one (id bigint)")
    with pytest.raises(StoreError) as raised:
        migrate(empty_database_url, [changed])
    assert raised.value.code == "migration_changed"


def test_a_newer_database_is_refused(empty_database_url: str) -> None:
    migrate(empty_database_url, [ONE, TWO])
    with pytest.raises(StoreError) as raised:
        migrate(empty_database_url, [ONE])
    assert raised.value.code == "database_newer"


def test_no_database_is_a_coded_error(tmp_path: Path) -> None:
    for url in (f"postgresql://postgres@/none?host={tmp_path}", "postgresql://h/d?no_such=1"):
        with pytest.raises(StoreError) as raised:
            migrate(url)
        assert raised.value.code == "database_unreachable"


def test_a_user_without_rights_is_a_coded_error(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE reader LOGIN")
    try:
        with pytest.raises(StoreError) as raised:
            migrate(empty_database_url.replace("postgres@", "reader@"))
    finally:
        with psycopg.connect(empty_database_url, autocommit=True) as connection:
            connection.execute("DROP ROLE reader")
    assert raised.value.code == "database_refused"
    assert "permission denied" in raised.value.message


def test_several_processes_at_once_apply_each_migration_once(empty_database_url: str) -> None:
    code = (
        f"from tidegate.stores.migrate import migrate; print(len(migrate({empty_database_url!r})))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    applied = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(applied) == [0, 0, len(shipped_migrations())]


def test_shipped_migrations_are_applied_and_vector_is_there(database_url: str) -> None:
    assert migrate(database_url) == ()
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT '[1,2]'::vector <-> '[1,3]'::vector").fetchone()
    assert row == (1.0,)


@pytest.mark.parametrize("name", ["1_short.sql", "0001_Upper.sql", "0001_b.sql"])
def test_names_and_numbers_of_files_are_strict(tmp_path: Path, name: str) -> None:
    (tmp_path / "0001_a.sql").write_text("SELECT 1")
    (tmp_path / name).write_text("SELECT 1")
    with pytest.raises(StoreError) as raised:
        shipped_migrations(tmp_path)
    assert raised.value.code == "migration_name_invalid"
