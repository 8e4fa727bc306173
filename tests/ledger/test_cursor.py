"""A reader gets each new receipt exactly once, however many loaders store them."""

from __future__ import annotations

import threading
from pathlib import Path

import psycopg
import pytest

from tests.ledger.samples import make_receipt, spool
from tidegate.base import StoreError, UsageError
from tidegate.ledger import Receipt, new_receipts, newest_position
from tidegate.ledger import cursor as module
from tidegate.ledger.partitions import Connection, Partitions
from tidegate.ledger.run import connect
from tidegate.ledger.store import Batch, ReceiptStore, make_entry


def store(connection: Connection, *receipts: Receipt) -> int:
    entries = [make_entry(one, b"", b"") for one in receipts]
    return ReceiptStore(connection, Partitions()).store(Batch(entries, {}))


def read_all(connection: Connection, after: int = 0, limit: int = 7) -> list[str]:
    found: list[str] = []
    while (page := new_receipts(connection, after, limit=limit)).receipts:
        found += (one.id for one in page.receipts)
        after = page.position
    return found


def test_pages_follow_each_other_and_an_empty_one_stays_where_it_is(connection: Connection) -> None:
    receipts = [make_receipt() for _ in range(20)]
    store(connection, *receipts)
    assert read_all(connection) == [one.id for one in receipts]
    end = newest_position(connection)
    assert end == 20
    page = new_receipts(connection, end)
    assert (page.receipts, page.position) == ((), end)
    late = make_receipt(at=1_795_000_000.0)  # an older day, loaded now
    store(connection, late)
    assert read_all(connection, end) == [late.id]


def test_a_receipt_that_is_stored_twice_is_read_once(connection: Connection) -> None:
    receipts = [make_receipt() for _ in range(5)]
    store(connection, *receipts)
    fresh = make_receipt()
    assert store(connection, *receipts, fresh) == 1
    assert read_all(connection) == [*(one.id for one in receipts), fresh.id]


def test_filters_look_at_releases_and_purposes(connection: Connection) -> None:
    mine = make_receipt(release="sha256:canary")
    shadow = make_receipt(release="sha256:canary", purpose="shadow")
    store(connection, make_receipt(), mine, shadow)
    page = new_receipts(connection, 0, release="sha256:canary")
    assert [one.id for one in page.receipts] == [mine.id, shadow.id]
    page = new_receipts(connection, 0, release="sha256:canary", purpose="user")
    assert [one.id for one in page.receipts] == [mine.id]


def test_a_transaction_that_commits_late_is_not_passed_by(database_url: str) -> None:
    """Given a loader whose transaction is open: what another one stores meanwhile waits for it, so
    no reader passes the position that is still to come."""
    with connect(database_url) as slow, connect(database_url) as quick:
        partitions = Partitions()
        first, second = make_receipt(), make_receipt()
        partitions.ensure_ahead(slow, module_now())
        slow.execute("BEGIN")
        ReceiptStore(slow, partitions).store(Batch([make_entry(first, b"", b"")], {}))
        thread = threading.Thread(target=store, args=(quick, second))
        thread.start()
        with connect(database_url) as reader:
            thread.join(0.3)
            assert thread.is_alive(), "it waits for the order"
            assert new_receipts(reader, 0).receipts == ()
            slow.execute("COMMIT")
            thread.join(10)
            assert read_all(reader) == [first.id, second.id]


def module_now():  # type: ignore[no-untyped-def]
    from datetime import UTC, datetime

    return datetime.now(UTC)


def test_many_loaders_and_a_reader_beside_them(database_url: str, tmp_path: Path) -> None:
    batches = [[[make_receipt() for _ in range(7)] for _ in range(12)] for _ in range(4)]

    def load(mine: list[list[Receipt]]) -> None:
        with connect(database_url) as connection:
            for batch in mine:
                store(connection, *batch)

    threads = [threading.Thread(target=load, args=(mine,)) for mine in batches]
    for thread in threads:
        thread.start()
    seen: list[str] = []
    position = 0
    with connect(database_url) as reader:
        while any(thread.is_alive() for thread in threads) or len(seen) < 4 * 12 * 7:
            page = new_receipts(reader, position, limit=5)
            seen += (one.id for one in page.receipts)
            position = page.position
            if not page.receipts and not any(thread.is_alive() for thread in threads):
                break
    for thread in threads:
        thread.join()
    made = {one.id for mine in batches for batch in mine for one in batch}
    assert len(seen) == len(made)
    assert set(seen) == made


def test_what_is_handed_out_is_on_disk(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(connection, make_receipt())
    new_receipts(connection, 0)
    row = connection.execute("SELECT pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn()")
    assert row.fetchone() == (True,)
    monkeypatch.setattr(module, "_DURABLE_WITHIN", -1.0)
    with pytest.raises(StoreError) as raised:
        new_receipts(connection, 0)
    assert raised.value.code == "ledger_not_durable"


@pytest.mark.parametrize("limit", [0, -1, 10_001])
def test_pages_are_bounded(connection: Connection, limit: int) -> None:
    with pytest.raises(UsageError) as raised:
        new_receipts(connection, 0, limit=limit)
    assert raised.value.code == "limit_invalid"


def test_the_loader_gives_positions_too(connection: Connection, tmp_path: Path) -> None:
    from tests.ledger.test_loader import load_all

    receipts = [make_receipt() for _ in range(30)]
    spool(tmp_path, receipts).close()
    load_all(tmp_path, connection)
    assert read_all(connection) == [one.id for one in receipts]
    with pytest.raises(psycopg.Error):
        connection.execute("INSERT INTO receipt_positions (last) VALUES (1)")
