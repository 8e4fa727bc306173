"""Time partitions: made ahead, dropped whole when their last moment is older than is kept."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal

import psycopg
import psycopg.rows
from psycopg import sql

from tidegate.release import LedgerSettings

Connection = psycopg.Connection[psycopg.rows.TupleRow]

KEEP_ROLLUPS = 400 * 86400.0
"""Seconds; roll-ups are small, so a year can be compared with the one before."""
KEEP_SPANS = 7 * 86400.0
"""Seconds; what journeys were assembled from. The journeys are kept as long as receipts."""
AHEAD = timedelta(days=2)

_NAME = re.compile(r"_p(\d{4})(\d{2})(\d{2})\Z")
LOCK = 0x7469_6465_0001
"""Advisory lock: one process changes partitions at a time."""


@dataclass(frozen=True)
class Partitioned:
    """``bound`` is the type of the partition key."""

    table: str
    every: Literal["day", "month"] = "day"
    bound: Literal["timestamptz", "date"] = "timestamptz"


TABLES = {
    p.table: p
    for p in (
        Partitioned("receipts"),
        Partitioned("content", bound="date"),
        Partitioned("spans", bound="date"),
        Partitioned("journeys"),
        Partitioned("rollups", every="month"),
    )
}


def keep_seconds(settings: LedgerSettings) -> dict[str, float]:
    """How long each table keeps its rows, in seconds."""
    return {
        "receipts": settings.keep_receipts,
        "content": settings.keep_content,
        "spans": min(KEEP_SPANS, settings.keep_receipts),
        "journeys": settings.keep_receipts,
        "rollups": max(KEEP_ROLLUPS, settings.keep_receipts),
    }


def first_day(every: Literal["day", "month"], day: date) -> date:
    return day.replace(day=1) if every == "month" else day


def day_after(every: Literal["day", "month"], start: date) -> date:
    """The first day that is no longer in the partition that begins at ``start``."""
    if every == "day":
        return start + timedelta(days=1)
    return (start + timedelta(days=32)).replace(day=1)


def expired(table: Partitioned, start: date, now: datetime, keep: float) -> bool:
    """Whether everything in the partition that begins at ``start`` is older than ``keep``."""
    end = datetime.combine(day_after(table.every, start), datetime.min.time(), UTC)
    return (now - end).total_seconds() >= keep


class Partitions:
    """Makes the partitions that rows need; remembers which are there."""

    def __init__(self) -> None:
        self._known: set[tuple[str, date]] = set()

    def forget(self) -> None:
        self._known.clear()

    def ensure(self, connection: Connection, table: str, days: Iterable[date]) -> None:
        """Make the partitions of ``table`` that hold ``days``; outside of a transaction."""
        kind = TABLES[table]
        wanted = {first_day(kind.every, day) for day in days}
        missing = sorted(start for start in wanted if (table, start) not in self._known)
        if not missing:
            return
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            for start in missing:
                connection.execute(_create(kind, start))
        self._known.update((table, start) for start in missing)

    def ensure_ahead(self, connection: Connection, now: datetime) -> None:
        today = now.date()
        for table in TABLES:
            self.ensure(connection, table, (today, today + AHEAD / 2, today + AHEAD))

    def drop_expired(
        self, connection: Connection, now: datetime, settings: LedgerSettings
    ) -> list[str]:
        """Drop what is older than is kept; the names of the partitions that went."""
        keep, dropped = keep_seconds(settings), []
        for table, start, name in list_partitions(connection):
            if expired(TABLES[table], start, now, keep[table]):
                with connection.transaction():
                    connection.execute("SET LOCAL lock_timeout = '3s'")
                    connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
                self._known.discard((table, start))
                dropped.append(name)
        return dropped


def list_partitions(connection: Connection) -> list[tuple[str, date, str]]:
    """Table, first day and name of each partition that was made here."""
    rows = connection.execute(
        "SELECT p.relname, c.relname FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent "
        "JOIN pg_class c ON c.oid = i.inhrelid WHERE p.relname = ANY(%s) AND p.relkind = 'p' "
        "ORDER BY c.relname",
        (list(TABLES),),
    ).fetchall()
    found = []
    for table, name in rows:
        match = _NAME.search(str(name))
        if match:
            year, month, day = map(int, match.groups())
            found.append((str(table), date(year, month, day), str(name)))
    return found


def _create(kind: Partitioned, start: date) -> sql.Composed:
    suffix = "" if kind.bound == "date" else " 00:00:00+00"
    return sql.SQL(
        "CREATE TABLE IF NOT EXISTS {} PARTITION OF {} FOR VALUES FROM ({}) TO ({})"
    ).format(
        sql.Identifier(f"{kind.table}_p{start:%Y%m%d}"),
        sql.Identifier(kind.table),
        sql.Literal(f"{start}{suffix}"),
        sql.Literal(f"{day_after(kind.every, start)}{suffix}"),
    )
