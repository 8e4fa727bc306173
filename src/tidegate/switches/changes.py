"""Every change of a switch: one version, one row that says who, what and why, one notification."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg

from tidegate.base import StoreError

CHANNEL = "tidegate_switches"
"""NOTIFY channel of every switch; the payload is the new version."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change, as it was written down."""

    version: int
    at: datetime
    by: str
    what: str
    old: Any = None
    new: Any = None
    reason: str | None = None


class Draft:
    """Change under way: its writer sets the old and the new value."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.old: Any = None
        self.new: Any = None
        self.made: Change | None = None
        """The change as it was written, once it is in force."""


@contextmanager
def changing(
    connection: psycopg.Connection, what: str, *, by: str | None = None, reason: str | None = None
) -> Iterator[Draft]:
    """Transaction of one change: takes the next version, and records the change when the block ends
    without an error.

    The row of the version is locked until the end, so what the block reads is what it replaces.
    """
    with connection.transaction():
        draft = Draft(_raise_version(connection))
        yield draft
        row = connection.execute(
            "INSERT INTO switch_changes (version, by, what, old, new, reason)"
            " VALUES (%s, %s, %s, %s::jsonb, %s::jsonb, %s) RETURNING at",
            (
                draft.version,
                by or user_name(),
                what,
                _json(draft.old),
                _json(draft.new),
                reason,
            ),
        ).fetchone()
    assert row is not None
    draft.made = Change(
        version=draft.version,
        at=row[0].astimezone(UTC),
        by=by or user_name(),
        what=what,
        old=draft.old,
        new=draft.new,
        reason=reason,
    )


def list_changes(connection: psycopg.Connection, most: int = 50) -> tuple[Change, ...]:
    """The last ``most`` changes, the newest first."""
    rows = connection.execute(
        "SELECT version, at, by, what, old, new, reason FROM switch_changes"
        " ORDER BY version DESC LIMIT %s",
        (most,),
    )
    return tuple(
        Change(
            version=version,
            at=at.astimezone(UTC),
            by=by,
            what=what,
            old=old,
            new=new,
            reason=reason,
        )
        for version, at, by, what, old, new, reason in rows
    )


def user_name() -> str:
    """Who runs this process, as the operating system names them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def _raise_version(connection: psycopg.Connection) -> int:
    """Take the next switch version; workers are notified when this transaction commits."""
    row = connection.execute(
        "UPDATE switches_version SET version = version + 1 RETURNING version"
    ).fetchone()
    if row is None:
        raise StoreError(
            "switches_version_missing",
            "the table switches_version has lost its row",
            cure="restore the database from a backup",
        )
    version = int(row[0])
    connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, str(version)))
    return version
