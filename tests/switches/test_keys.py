"""Keys in a real PostgreSQL: shown once, stored as a hash, revoked by id or name."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from tidegate.base.errors import StoreError
from tidegate.switches import (
    KeyRecord,
    KeyTable,
    create_key,
    key_records,
    list_keys,
    revoke_key,
    snapshot,
)


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def test_a_made_key_is_in_the_next_snapshot(connection: psycopg.Connection) -> None:
    made = create_key(connection, name="web", tenant="acme")
    seen = snapshot(connection)
    found = KeyTable(key_records(connection)).find(made.token, now=0.0)
    assert isinstance(found, KeyRecord)
    assert (seen.version, found.id, found.tenant) == (1, made.key.id, "acme")
    assert found.priority == "normal"


def test_a_key_s_priority_is_in_the_list_and_in_the_snapshot(
    connection: psycopg.Connection,
) -> None:
    made = create_key(connection, name="batch", priority="low")
    found = KeyTable(key_records(connection)).find(made.token, now=0.0)
    assert isinstance(found, KeyRecord)
    assert [found.priority, *(key.priority for key in list_keys(connection))] == ["low", "low"]


def test_the_token_is_nowhere_in_the_database_nor_in_a_repr(connection: psycopg.Connection) -> None:
    made = create_key(connection, name="web")
    secret = made.token[16:]
    stored = connection.execute("SELECT keys::text FROM keys").fetchall()
    assert secret not in str(stored)
    assert secret not in repr(made)


def test_each_change_takes_the_next_version(connection: psycopg.Connection) -> None:
    assert snapshot(connection).version == 0
    made = create_key(connection, name="a")
    create_key(connection, name="b")
    revoke_key(connection, made.key.id)
    revoke_key(connection, made.key.id)  # already so: no new version
    assert snapshot(connection).version == 3


def test_revoked_and_expired_keys_stay_in_the_list(connection: psycopg.Connection) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    create_key(connection, name="old", expires_at=past)
    create_key(connection, name="gone")
    create_key(connection, name="good", expires_at=past + timedelta(days=1))
    revoke_key(connection, "gone")
    statuses = {key.name: key.status for key in list_keys(connection)}
    assert statuses == {"old": "expired", "gone": "revoked", "good": "active"}


def test_a_name_must_mean_one_key(connection: psycopg.Connection) -> None:
    with pytest.raises(StoreError) as unknown:
        revoke_key(connection, "web")
    create_key(connection, name="web")
    create_key(connection, name="web")
    with pytest.raises(StoreError) as ambiguous:
        revoke_key(connection, "web")
    assert (unknown.value.code, ambiguous.value.code) == ("key_unknown", "key_ambiguous")
