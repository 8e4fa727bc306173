"""New receipts, each exactly once: pages in the order in which they became visible.

A position is given inside the transaction that stores a receipt, under a lock that is held until
it commits (``store.take_positions``). So nothing new ever appears below a position that was read,
and a reader needs to keep one number. Ids would not do: a receipt may be loaded minutes after a
later one.
"""

from __future__ import annotations

import time

import msgspec

from tidegate.base import StoreError, UsageError
from tidegate.ledger.columns import SELECTED, decode_row
from tidegate.ledger.partitions import Connection
from tidegate.ledger.receipts import Receipt

MOST_IN_PAGE = 10_000
_DURABLE_WITHIN = 5.0


class ReceiptPage(msgspec.Struct, frozen=True, kw_only=True):
    """``position`` is that of the last receipt that was looked at: where the next page begins."""

    receipts: tuple[Receipt, ...]
    position: int


def newest_position(connection: Connection) -> int:
    """Where a reader begins that wants only what is still to come."""
    row = connection.execute("SELECT last FROM receipt_positions").fetchone()
    return 0 if row is None else int(row[0])


def new_receipts(
    connection: Connection,
    after: int,
    *,
    limit: int = 1000,
    release: str | None = None,
    purpose: str | None = None,
) -> ReceiptPage:
    """The receipts that became visible after position ``after``, oldest first; with ``release`` (a
    whole digest) or ``purpose`` those only. An empty page means that there is nothing new.

    What is handed out is on PostgreSQL's disk first: a loader's commits do not wait for it, and
    after a crash the same positions could stand for other receipts. UsageError: limit_invalid.
    """
    if not 1 <= limit <= MOST_IN_PAGE:
        raise UsageError(
            "limit_invalid",
            f"a limit of {limit} is not between 1 and {MOST_IN_PAGE}",
            cure="ask for a page within that",
        )
    rows = connection.execute(
        f"SELECT {SELECTED}, position FROM receipts WHERE position > %(after)s "
        "AND (%(release)s::text IS NULL OR release = %(release)s) "
        "AND (%(purpose)s::text IS NULL OR purpose = %(purpose)s) "
        "ORDER BY position LIMIT %(limit)s".encode(),
        {"after": after, "release": release, "purpose": purpose, "limit": limit},
    ).fetchall()
    if not rows:
        return ReceiptPage(receipts=(), position=after)
    _wait_for_disk(connection)
    return ReceiptPage(receipts=tuple(map(decode_row, rows)), position=int(rows[-1][-1]))


def _wait_for_disk(connection: Connection) -> None:
    """Return when everything that is visible now is on disk: within three rounds of PostgreSQL's
    WAL writer, which is 0.6 s by default."""
    row = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
    assert row is not None
    until = time.monotonic() + _DURABLE_WITHIN
    while time.monotonic() < until:
        done = connection.execute("SELECT pg_current_wal_flush_lsn() >= %s::pg_lsn", row).fetchone()
        if done is not None and done[0]:
            return
        time.sleep(0.02)
    raise StoreError(
        "ledger_not_durable",
        f"PostgreSQL did not write its log to disk within {_DURABLE_WITHIN:g} s",
        cure="look at its disk, then ask again; nothing was handed out",
    )
