"""Gateway keys in PostgreSQL: made once and shown once, listed, revoked."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

import msgspec
import psycopg

from tidegate.base import StoreError
from tidegate.switches.changes import changing
from tidegate.switches.rules import Priority, token_hash

KeyStatus = Literal["active", "revoked", "expired"]
_SELECT = "SELECT id, name, tenant, created_at, expires_at, revoked_at, priority FROM keys"


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One key as people see it. Times are ISO 8601 in UTC."""

    id: str
    name: str
    tenant: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    status: KeyStatus
    priority: Priority


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key at the only moment its token is known."""

    key: Key
    token: str

    def __repr__(self) -> str:
        return f"NewKey({self.key.id})"


def make_token(entropy: Callable[[int], bytes] = os.urandom) -> tuple[str, str]:
    """(id, token): ``tg-<12 hex digits of id>-<43 characters, 256 random bits>``."""
    key_id = entropy(6).hex()
    secret = base64.urlsafe_b64encode(entropy(32)).rstrip(b"=").decode()
    return key_id, f"tg-{key_id}-{secret}"


def create_key(
    connection: psycopg.Connection,
    *,
    name: str,
    tenant: str | None = None,
    expires_at: datetime | None = None,
    priority: Priority = "normal",
) -> NewKey:
    """Make a key. Every gateway knows it within a second."""
    key_id, token = make_token()
    with changing(connection, f"key {key_id} ({name})") as change:
        change.new = {"tenant": tenant, "expires_at": expires_at, "priority": priority}
        connection.execute(
            "INSERT INTO keys (id, name, tenant, hash, expires_at, version, priority)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            (key_id, name, tenant, token_hash(token), expires_at, change.version, priority),
        )
    return NewKey(key=_one(connection, key_id), token=token)


def list_keys(connection: psycopg.Connection) -> tuple[Key, ...]:
    """Every key, revoked ones included, the oldest first."""
    return tuple(_key(row) for row in connection.execute(f"{_SELECT} ORDER BY created_at, id"))


def revoke_key(connection: psycopg.Connection, which: str) -> Key:
    """Revoke the key with the id ``which``, or the one active key with that name.

    Revoking twice changes nothing. StoreError ``key_unknown`` or ``key_ambiguous``.
    """
    key = _chosen(connection, which)
    if key.revoked_at is None:
        with changing(connection, f"key {key.id} ({key.name})") as change:
            change.old, change.new = {"status": key.status}, {"status": "revoked"}
            connection.execute(
                "UPDATE keys SET revoked_at = now(), version = %s"
                " WHERE id = %s AND revoked_at IS NULL",
                (change.version, key.id),
            )
    return _one(connection, key.id)


def _one(connection: psycopg.Connection, key_id: str) -> Key:
    row = connection.execute(f"{_SELECT} WHERE id = %s", (key_id,)).fetchone()
    assert row is not None
    return _key(row)


def _key(
    row: tuple[str, str, str | None, datetime, datetime | None, datetime | None, Priority],
) -> Key:
    key_id, name, tenant, created_at, expires_at, revoked_at, priority = row
    status: KeyStatus = "active"
    if revoked_at is not None:
        status = "revoked"
    elif expires_at is not None and expires_at <= datetime.now(UTC):
        status = "expired"
    return Key(
        id=key_id,
        name=name,
        tenant=tenant,
        created_at=created_at.astimezone(UTC),
        expires_at=expires_at and expires_at.astimezone(UTC),
        revoked_at=revoked_at and revoked_at.astimezone(UTC),
        status=status,
        priority=priority,
    )


def _chosen(connection: psycopg.Connection, which: str) -> Key:
    rows = connection.execute(f"{_SELECT} WHERE id = %s OR name = %s", (which, which))
    keys = [_key(row) for row in rows]
    if exact := [key for key in keys if key.id == which]:
        return exact[0]
    named = [key for key in keys if key.name == which and key.revoked_at is None]
    if not named:
        raise StoreError(
            "key_unknown",
            f"no key has the id {which!r}, and no key that is not revoked has that name",
            cure="see the ids: tidegate keys list",
        )
    if len(named) > 1:
        raise StoreError(
            "key_ambiguous",
            f"{len(named)} keys have the name {which!r}: {', '.join(key.id for key in named)}",
            cure="name one by its id",
        )
    return named[0]
