"""One transaction: new receipts, their content, their roll-ups, and how far the spool is read.

Either all of it is in PostgreSQL or nothing is, so a kill anywhere followed by a restart leaves
each receipt once and roll-ups that are right. In the common case every receipt is new and goes in
by COPY; when one is there already (the same file twice) all go through a temporary table, and
only those that were really inserted are added to the roll-ups.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import NamedTuple

import psycopg

from tidegate.ledger.columns import NAMES, day_time, receipt_line
from tidegate.ledger.partitions import Connection, Partitions
from tidegate.ledger.receipts import Receipt
from tidegate.ledger.rollups import Rollup, RollupKey, add_tallies, receipt_rollups
from tidegate.ledger.rows import CONTENT_COLUMNS, content_rows

LOCK = 0x7469_6465_0002
"""Advisory lock: roll-ups are read, added to and written back by one transaction at a time."""
_SEEN_MOST = 20_000


class Entry(NamedTuple):
    """One receipt with its COPY line, but for the position."""

    receipt: Receipt
    line: str
    day: date
    contents: list[tuple[bytes, bytes]]
    """(sha256, body) of the content that came with it."""


@dataclass(frozen=True)
class Batch:
    """``positions``: file name to where its next record starts once this batch is stored."""

    entries: Sequence[Entry]
    positions: Mapping[str, int]


def make_entry(receipt: Receipt, request: bytes, response: bytes) -> Entry:
    """Raises ValueError or OverflowError when the receipt cannot be a row."""
    contents: list[tuple[bytes, bytes]] = []
    shas: list[bytes | None] = [None, None]
    for place, body in enumerate((request, response)):
        if body:
            shas[place] = sha = hashlib.sha256(body).digest()
            contents.append((sha, body))
    line = receipt_line(receipt, *shas)
    return Entry(receipt, line, day_time(receipt.at).date(), contents)


class ReceiptStore:
    """Stores batches over a connection of its own."""

    def __init__(self, connection: Connection, partitions: Partitions) -> None:
        self._connection = connection
        self._partitions = partitions
        self._seen: dict[tuple[bytes, date], None] = {}

    def positions(self) -> dict[str, int]:
        """File name to committed position, of every file that was ever read in part."""
        rows = self._connection.execute("SELECT file, position FROM spool_progress").fetchall()
        return {str(file): int(str(position)) for file, position in rows}

    def store(self, batch: Batch) -> int:
        """Store ``batch``; how many of its receipts were new. Raises psycopg.Error."""
        days = {entry.day for entry in batch.entries}
        for table in ("receipts", "content", "rollups"):
            self._partitions.ensure(self._connection, table, days)
        contents = self._unseen(batch.entries)
        try:
            with self._connection.transaction():
                first = take_positions(self._connection, len(batch.entries))
                self._copy("receipts", batch.entries, first)
                self._finish(batch, [e.receipt for e in batch.entries], contents)
            new = len(batch.entries)
        except psycopg.errors.UniqueViolation:
            new = self._store_again(batch, contents)
        self._remember(contents)
        return new

    def refuses(self, entries: Sequence[Entry]) -> list[Entry]:
        """The entries whose values PostgreSQL cannot hold, found by halving."""
        self._connection.execute(_TEMPORARY)
        try:
            with self._connection.transaction(force_rollback=True):
                self._copy("receipts_in", entries, 0)
        except psycopg.DataError:
            if len(entries) == 1:
                return list(entries)
            half = len(entries) // 2
            return self.refuses(entries[:half]) + self.refuses(entries[half:])
        return []

    def flush(self) -> None:
        """Return when everything that was stored is on PostgreSQL's disk."""
        with self._connection.transaction():
            self._connection.execute("SET LOCAL synchronous_commit = on")
            self._connection.execute(
                "INSERT INTO spool_progress (file, position) VALUES ('flush', 0) "
                "ON CONFLICT (file) DO UPDATE SET moved_at = now()"
            )

    def let_go(self, files: Iterable[str]) -> None:
        """Delete the positions of spool files that no longer exist."""
        self._connection.execute("DELETE FROM spool_progress WHERE file = ANY(%s)", (list(files),))

    def _store_again(self, batch: Batch, contents: list[tuple[bytes, date, bytes]]) -> int:
        self._connection.execute(_TEMPORARY)
        with self._connection.transaction():
            # Those that are there already leave their positions unused: gaps do no harm.
            first = take_positions(self._connection, len(batch.entries))
            self._copy("receipts_in", batch.entries, first)
            rows = self._connection.execute(
                f"INSERT INTO receipts ({NAMES}) SELECT {NAMES} "
                "FROM receipts_in ON CONFLICT DO NOTHING RETURNING replace(id::text, '-', '')"
            ).fetchall()
            inserted = {str(row[0]) for row in rows}
            new = {e.receipt.id: e.receipt for e in batch.entries if e.receipt.id in inserted}
            self._finish(batch, list(new.values()), contents)
        return len(new)

    def _copy(self, table: str, entries: Sequence[Entry], first: int) -> None:
        """Store ``entries``, whose positions begin at ``first``."""
        if not entries:
            return
        lines = [f"{entry.line}\t{at}\n" for at, entry in enumerate(entries, first)]
        text = "".join(lines)
        with (
            self._connection.cursor() as cursor,
            cursor.copy(f"COPY {table} ({NAMES}) FROM STDIN") as copy,
        ):
            copy.write(text)

    def _finish(
        self, batch: Batch, new: Sequence[Receipt], contents: list[tuple[bytes, date, bytes]]
    ) -> None:
        if contents:
            store_contents(self._connection, contents)
        if new:
            add_rollups(self._connection, receipt_rollups(new))
        move_positions(self._connection, batch.positions)

    def _unseen(self, entries: Sequence[Entry]) -> list[tuple[bytes, date, bytes]]:
        """Content to store, once, in the order of its hash (so that two loaders cannot wait for
        each other)."""
        fresh: dict[tuple[bytes, date], bytes] = {}
        for entry in entries:
            for sha, body in entry.contents:
                key = (sha, entry.day)
                if key not in self._seen:
                    fresh[key] = body
        return [(sha, day, fresh[sha, day]) for sha, day in sorted(fresh)]

    def _remember(self, contents: list[tuple[bytes, date, bytes]]) -> None:
        self._seen.update(dict.fromkeys((sha, day) for sha, day, _ in contents))
        if len(self._seen) > 2 * _SEEN_MOST:
            self._seen = dict.fromkeys(list(self._seen)[-_SEEN_MOST:])


_CONTENT_IN = "CREATE TEMPORARY TABLE IF NOT EXISTS content_in (LIKE content) ON COMMIT DELETE ROWS"
_TEMPORARY = (
    "CREATE TEMPORARY TABLE IF NOT EXISTS receipts_in (LIKE receipts) ON COMMIT DELETE ROWS"
)


def take_positions(connection: Connection, count: int) -> int:
    """The first of ``count`` positions for receipts of this transaction.

    The row stays locked until the transaction ends, so a loader that commits later has later
    positions: a reader that has seen position N will find nothing new below it. For this no other
    row may be locked before this one, or two loaders could wait for each other."""
    row = connection.execute(
        "UPDATE receipt_positions SET last = last + %s RETURNING last", (count,)
    ).fetchone()
    assert row is not None
    return int(row[0]) - count + 1


def move_positions(connection: Connection, positions: Mapping[str, int]) -> None:
    """Note how far the spool files are stored, in the transaction that stores it."""
    connection.execute(
        "INSERT INTO spool_progress (file, position) SELECT * FROM unnest(%s::text[], "
        "%s::bigint[]) ON CONFLICT (file) DO UPDATE SET position = excluded.position, "
        "moved_at = now()",
        (list(positions), list(positions.values())),
    )


def store_contents(connection: Connection, contents: list[tuple[bytes, date, bytes]]) -> None:
    """Store content that is not there yet; in a transaction."""
    connection.execute(_CONTENT_IN)
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY content_in ({CONTENT_COLUMNS}) FROM STDIN (FORMAT BINARY)") as copy,
    ):
        copy.write(content_rows(contents))
    connection.execute(
        f"INSERT INTO content ({CONTENT_COLUMNS}) SELECT {CONTENT_COLUMNS} FROM content_in "
        "ON CONFLICT DO NOTHING"
    )


def add_rollups(connection: Connection, rollups: Mapping[RollupKey, Rollup]) -> None:
    """Add ``rollups`` to the stored ones, and their tallies to the totals; in a transaction."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
    keys = list(rollups)
    columns = _columns(keys)
    stored = connection.execute(
        f"SELECT {_KEYS}, r.body FROM rollups r JOIN unnest({_KEY_ARRAYS}) AS k({_KEYS}) "
        f"USING ({_KEYS}) WHERE minute = ANY(%s)",
        (*columns, list(set(columns[0]))),
    ).fetchall()
    before = {
        RollupKey(int(minute.timestamp() // 60), *names): body for minute, *names, body in stored
    }
    merged = []
    for key in keys:
        old = before.get(key)
        merged.append(Rollup.merged_from([old]) + rollups[key] if old else rollups[key])
    connection.execute(
        f"INSERT INTO rollups ({_KEYS}, count, body) "
        f"SELECT * FROM unnest({_KEY_ARRAYS}, %s::bigint[], %b::bytea[]) "
        f"ON CONFLICT ({_KEYS}) "
        "DO UPDATE SET count = excluded.count, body = excluded.body",
        (*columns, [one.count for one in merged], [one.encode() for one in merged]),
    )
    add_totals(
        connection,
        [
            (key.scope, key.journey if key.scope == "journey" else key.route, key.purpose, tallies)
            for key, rollup in rollups.items()
            if (tallies := rollup.tallies) and key.scope != "journey_route"
        ],
    )


_KEYS = ", ".join(RollupKey._fields)
_KEY_ARRAYS = ", ".join(["%s::timestamptz[]", *["%s::text[]"] * (len(RollupKey._fields) - 1)])


def _columns(keys: Sequence[RollupKey]) -> tuple[list[object], ...]:
    minutes: list[object] = [datetime.fromtimestamp(key.minute * 60, UTC) for key in keys]
    return (minutes, *([getattr(key, name) for key in keys] for name in RollupKey._fields[1:]))


def add_totals(
    connection: Connection, tallies: Iterable[tuple[str, str, str, Mapping[str, float]]]
) -> None:
    """Add (scope, name, purpose, tallies) to the sums since the ledger began; in a transaction."""
    by_name: dict[tuple[str, str, str], list[Mapping[str, float]]] = {}
    for *key, mine in tallies:
        scope, name, purpose = key
        by_name.setdefault((scope, name, purpose), []).append(mine)
    rows = [
        (*key, tally, float(value))
        for key, many in sorted(by_name.items())
        for tally, value in sorted(add_tallies(many).items())
        if value
    ]
    if not rows:
        return
    connection.execute(
        "INSERT INTO ledger_totals (scope, name, purpose, tally, value) SELECT * FROM "
        "unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::float8[]) "
        "ON CONFLICT (scope, name, purpose, tally) DO UPDATE SET value = ledger_totals.value + "
        "excluded.value",
        [list(column) for column in zip(*rows, strict=True)],
    )
