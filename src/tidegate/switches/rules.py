"""Whether a token is a key, and why not: pure, over a snapshot of the keys.

A key is stored as one sha256. A slow hash (bcrypt, argon2) guards secrets that people choose and
that can be guessed; a key holds 256 random bits, which no speed of guessing reaches, and it is
checked on every request, where 50 ms of hashing would be an outage.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import Literal

import msgspec

TOKEN_SHAPE = re.compile(r"tg-[0-9a-f]{12}-[A-Za-z0-9_-]{43}")
_ID = slice(3, 15)

Priority = Literal["high", "normal", "low"]
"""Whose request waits shorter when a route's places are taken."""

PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")
"""In the order in which they are served."""

KeyRefusal = Literal["key_missing", "key_invalid", "key_revoked", "key_expired"]
"""Why a token is not let in; each is answered with HTTP 401."""


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One key as a gateway needs it.

    ``gc=False``: it holds nothing that could lead back to it, and 100,000 of them would make each
    full garbage collection a pause.
    """

    id: str
    """12 hex digits; part of the token, and what receipts carry."""
    name: str
    hash: bytes
    """sha256 of the whole token."""
    tenant: str | None = None
    expires_at: float | None = None
    """Seconds since the epoch; None: never."""
    revoked: bool = False
    priority: Priority = "normal"
    version: int = 0
    """Of the switches, when this key was last changed."""


class KeyTable:
    """Keys, indexed for the request path: one look-up, one sha256, one comparison.

    Changed in place: a copy of 100,000 keys for each new one would hold the loop up.
    """

    def __init__(self, records: Iterable[KeyRecord] = ()) -> None:
        self._records: dict[str, KeyRecord] = {}
        self.version = 0
        """The newest version of any key."""
        self.put(records)

    def __len__(self) -> int:
        return len(self._records)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyTable) and self._records == other._records

    __hash__ = None  # type: ignore[assignment]  # it changes

    def put(self, records: Iterable[KeyRecord]) -> None:
        """Add keys, or replace those that are here."""
        for record in records:
            self._records[record.id] = record
            if record.version > self.version:
                self.version = record.version

    def get(self, key_id: str) -> KeyRecord | None:
        return self._records.get(key_id)

    def records(self) -> list[KeyRecord]:
        """Every key, for a reader beside the loop: later changes do not show."""
        return list(self._records.values())

    def find(self, token: str, now: float) -> KeyRecord | KeyRefusal:
        """The key that ``token`` is, at ``now`` (seconds since the epoch), or why it is none.

        That a key is revoked or expired is told only to who holds its secret.
        """
        if not token:
            return "key_missing"
        record = self._records.get(token[_ID])
        if record is None or not hmac.compare_digest(token_hash(token), record.hash):
            return "key_invalid"
        if record.revoked:
            return "key_revoked"
        if record.expires_at is not None and record.expires_at <= now:
            return "key_expired"
        return record


def token_hash(token: str) -> bytes:
    """What is stored of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
