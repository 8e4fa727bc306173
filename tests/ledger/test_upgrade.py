"""A ledger of the version before opens, and keeps its sums."""

from __future__ import annotations

import time

import psycopg

from tests.ledger.samples import RELEASE, make_receipt
from tidegate.ledger import ReceiptFilter, find_receipts, health, profile
from tidegate.ledger.partitions import Partitions
from tidegate.ledger.rollups import receipt_rollups
from tidegate.ledger.run import connect
from tidegate.ledger.store import Batch, ReceiptStore, make_entry
from tidegate.stores.migrate import migrate, shipped_migrations

BEFORE = 70
"""Number of the migration that brought purposes, positions and decisions."""


def test_receipts_roll_ups_and_sums_of_before_are_kept(empty_database_url: str) -> None:
    migrations = shipped_migrations()
    migrate(empty_database_url, [one for one in migrations if one.number < BEFORE])
    now = time.time()
    receipt = make_receipt(at=now, journey="get-plan", cost=0.25)
    (rollup,) = (one for key, one in receipt_rollups([receipt]).items() if key.scope == "route")
    with connect(empty_database_url) as connection:
        Partitions().ensure(connection, "rollups", [])
        partitions = Partitions()
        for table in ("receipts", "rollups"):
            partitions.ensure(connection, table, [time_day(now)])
        connection.execute(
            "INSERT INTO receipts (id, at, kind, status, outcome, release, route, journey, stream, "
            "cache, stages, total, worker, cost) VALUES (%s, to_timestamp(%s), 'chat', 200, "
            "'served', %s, 'recommend', 'get-plan', false, 'miss', '{\"admit\": 1}', 5, 1, 0.25)",
            (receipt.id, now, RELEASE),
        )
        connection.execute(
            "INSERT INTO rollups (minute, scope, release, route, journey, count, body) VALUES "
            "(date_trunc('minute', to_timestamp(%s)), 'route', %s, 'recommend', 'get-plan', 1, %b)",
            (now, RELEASE, rollup.encode()),
        )
        connection.execute("INSERT INTO ledger_totals VALUES ('route', 'recommend', 'count', 1)")
    migrate(empty_database_url, migrations)
    with connect(empty_database_url) as connection:
        (found,) = find_receipts(connection, ReceiptFilter(release="ab" * 8, purpose="user"))
        assert (found.cost, found.stages, found.reasons) == (0.25, {"admit": 1.0}, {})
        store = ReceiptStore(connection, Partitions())
        store.store(Batch([make_entry(make_receipt(at=now, journey="get-plan"), b"", b"")], {}))
        (route,) = profile(connection, 3600).routes
        assert route.count == 2, "the old one and the new one"
        (route,) = profile(connection, 3600, journey="get-plan").routes
        assert route.count == 2
        assert health(connection, 3600, journey="get-plan").requests == 2
        total = connection.execute(
            "SELECT value FROM ledger_totals WHERE tally = 'count' AND purpose = 'user'"
        ).fetchall()
    assert total == [(2.0,)]


def time_day(at: float):  # type: ignore[no-untyped-def]
    from tidegate.ledger.columns import day_time

    return day_time(at).date()


def test_the_migration_is_the_one_that_is_shipped(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT last FROM receipt_positions").fetchone()
    assert row == (0,)
