"""Differences give the same tables as a whole snapshot, and say when they cannot be built upon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.switches.readers import SAME, Reader, back_up, restore
from tidegate.base import UsageError
from tidegate.switches import (
    HASH_FORM,
    Author,
    Cap,
    KeyTable,
    Kill,
    SecretKey,
    SwitchSnapshot,
    Weight,
    create_key,
    key_records,
    kill,
    lift_cap,
    lift_kill,
    list_keys,
    revoke_key,
    rollback_flags,
    set_cap,
    set_flags,
    set_secret_key,
    set_traffic,
    snapshot,
)
from tidegate.switches.changes import changing
from tidegate.switches.snapshot import PAGE
from tidegate.switches.values import SECTIONS

ME = Author(by="test")


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


NAMES = st.sampled_from(["a", "b", "c"])
CHANGES = st.one_of(
    st.tuples(
        st.sampled_from(
            ["create", "revoke", "delete", "kill", "lift kill", "cap", "lift cap", "secret"]
        ),
        NAMES,
    ),
    st.tuples(st.sampled_from(["traffic", "lift traffic", "flags", "roll back"]), NAMES),
)


def change(connection: psycopg.Connection, what: str, name: str) -> None:
    """One change; where there is nothing to lift or to revoke, none."""
    keys = [key.id for key in list_keys(connection) if key.name == name]
    number = snapshot(connection).version
    act: dict[str, Any] = {
        "create": lambda: create_key(connection, name=name, tenant=f"t{number}"),
        "revoke": lambda: keys and revoke_key(connection, keys[number % len(keys)]),
        "delete": lambda: keys and delete_key(connection, keys[number % len(keys)]),
        "kill": lambda: kill(connection, Kill(kind="route", name=name, reason=str(number)), ME),
        "lift kill": lambda: lift_kill(connection, "route", name, ME),
        "cap": lambda: set_cap(connection, Cap(route=name, output_tokens=number + 1), ME),
        "lift cap": lambda: lift_cap(connection, name, ME),
        "secret": lambda: set_secret_key(
            connection, SecretKey(secret=name, fingerprint="f", state="draining"), ME
        ),
        "traffic": lambda: set_traffic(
            connection, name, [Weight(release=f"r{number}", weight=100, route=name)], ME
        ),
        "lift traffic": lambda: set_traffic(connection, name, [], ME),
        "flags": lambda: set_flags(connection, '{"flags": {}}', HASH_FORM, ME),
        "roll back": lambda: rollback_flags(connection, None, ME),
    }
    try:
        act[what]()
    except UsageError:  # nothing of that name is in force
        pass


def delete_key(connection: psycopg.Connection, key_id: str) -> None:
    with changing(connection, "delete"):
        connection.execute("DELETE FROM keys WHERE id = %s", (key_id,))


def assert_same(reader: Reader, connection: psycopg.Connection) -> None:
    now, whole = reader.tables.snapshot, snapshot(connection)
    assert [getattr(now, name) for name in SAME] == [getattr(whole, name) for name in SAME]
    assert reader.tables.keys == KeyTable(key_records(connection))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(CHANGES, st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_any_batches_of_changes_give_what_a_whole_snapshot_gives(
    connection: psycopg.Connection, drawn: list[tuple[tuple[str, str], bool, bool]]
) -> None:
    """given two readers that catch up after changes of their own choice and one after each; then
    all have in the end what one has that reads everything."""
    often, *others = readers = [Reader() for _ in range(3)]
    for reader in readers:
        reader.catch_up(connection)
    for (what, name), *catch_up in drawn:
        change(connection, what, name)
        often.catch_up(connection)
        for reader, now in zip(others, catch_up, strict=True):
            if now:
                reader.catch_up(connection)
    for reader in readers:
        reader.catch_up(connection)
        assert_same(reader, connection)


def test_a_difference_holds_what_changed_and_nothing_else(connection: psycopg.Connection) -> None:
    create_key(connection, name="old")
    reader = Reader()
    assert reader.catch_up(connection).whole
    kill(connection, Kill(kind="route", name="r"), ME)
    fresh = reader.catch_up(connection)
    assert (fresh.whole, set(fresh.sections), fresh.keys) == (False, {"kills"}, ())
    made = create_key(connection, name="new")
    fresh = reader.catch_up(connection)
    assert (set(fresh.sections), [key.id for key in fresh.keys]) == (set(), [made.key.id])
    fresh = reader.catch_up(connection)
    assert (set(fresh.sections), fresh.keys, fresh.whole) == (set(), (), False)


def test_keys_change_in_place_and_requests_see_it(connection: psycopg.Connection) -> None:
    made = create_key(connection, name="web")
    reader = Reader()
    reader.catch_up(connection)
    table = reader.tables.keys
    revoke_key(connection, made.key.id)
    reader.catch_up(connection)
    assert reader.tables.keys is table
    assert table.find(made.token, now=0.0) == "key_revoked"


@pytest.mark.parametrize(("count", "whole"), [(PAGE, False), (PAGE + 1, True)])
def test_more_keys_than_a_page_are_read_anew(
    connection: psycopg.Connection, count: int, whole: bool
) -> None:
    reader = Reader()
    reader.catch_up(connection)
    with changing(connection, "many keys") as draft:
        connection.execute(
            "INSERT INTO keys (id, name, hash, version) SELECT lpad(to_hex(n), 12, '0'), 'k',"
            " sha256(n::text::bytea), %s FROM generate_series(1, %s) n",
            (draft.version, count),
        )
    assert reader.catch_up(connection).whole is whole
    assert_same(reader, connection)
    assert len(reader.tables.keys) == count


@pytest.mark.parametrize("later", [0, 3, 7], ids=["lower", "equal", "higher"])
def test_a_restored_database_is_not_built_upon(database_url: str, later: int) -> None:
    """given a reader at version 4; when a backup of version 1 takes the database's place, with
    changes of its own after it; then everything is read anew, whichever number is higher."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        create_key(connection, name="first")
    backup = back_up(database_url)
    reader = Reader()
    with psycopg.connect(database_url, autocommit=True) as connection:
        create_key(connection, name="lost")
        kill(connection, Kill(kind="route", name="lost"), ME)
        revoke_key(connection, "first")
        reader.catch_up(connection)
    with psycopg.connect(backup, autocommit=True) as connection:
        for number in range(later):
            create_key(connection, name=f"new {number}")
    restore(database_url, backup)
    with psycopg.connect(database_url, autocommit=True) as connection:
        fresh = reader.catch_up(connection)
        assert (fresh.whole, fresh.broken) == (True, True)
        assert_same(reader, connection)
        assert reader.tables.snapshot is not None
        assert reader.tables.snapshot.history == 1
        assert len(reader.tables.keys) == 1 + later


def test_every_section_is_carried(connection: psycopg.Connection) -> None:
    """Each field of a snapshot that holds switches is in the table, and its table has a trigger."""
    about = {"version", "mark", "history"}
    assert set(SwitchSnapshot.__struct_fields__) - about == set(SECTIONS)
    rows = connection.execute(
        "SELECT encode(tgargs, 'escape') FROM pg_trigger WHERE tgname = 'section'"
    )
    stamped = {row[0].removesuffix("\\000") for row in rows}
    assert stamped == {*SECTIONS, "keys"}
