"""A connection for a command: whatever the server does, the command ends with a cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate.base.errors import StoreError, UsageError
from tidegate.stores.open import connected


def test_given_no_server_then_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_DATABASE_URL", f"postgresql://nobody@/none?host={tmp_path}")
    with pytest.raises(StoreError) as raised, connected(tmp_path):
        pass
    assert raised.value.code == "database_unreachable"


def test_given_a_server_that_goes_away_in_between_then_it_is_told(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_DATABASE_URL", database_url)
    with pytest.raises(StoreError) as raised, connected(tmp_path) as connection:
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert raised.value.code == "database_unreachable"
    assert "may be in force" in str(raised.value)


@pytest.mark.parametrize("values", [("\udcff", 1), ("a\0b", 1), ("a", 1 << 70)])
def test_what_no_column_holds_is_refused(
    values: tuple[str, int], tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_DATABASE_URL", database_url)
    with pytest.raises(UsageError) as raised, connected(tmp_path) as connection:
        connection.execute("INSERT INTO kills VALUES ('tenant', %s, %s)", values)
    assert raised.value.code == "value_invalid"
