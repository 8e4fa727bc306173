"""Verdicts of gates and decisions about releases: written once, never changed.

The tables refuse UPDATE, DELETE and TRUNCATE; each row names the release that it is about.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import msgspec
from psycopg.types.json import Jsonb

from tidegate.base import UsageError, new_id
from tidegate.ledger.partitions import Connection

VerdictValue = Literal["PASS", "FAIL", "INCONCLUSIVE"]
MOST_ROWS = 1000


class LedgerActor(msgspec.Struct, frozen=True):
    """Who did it: a person, a gateway key, or a controller by itself."""

    kind: Literal["person", "key", "controller"]
    name: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate found of a release. ``evidence`` is what the finding rests on, as JSON."""

    release: str
    gate: str
    value: VerdictValue
    reason: str
    actor: LedgerActor
    evidence: dict[str, Any] = {}
    id: str = ""
    """UUIDv7; given when it is written."""
    at: float = 0.0
    """Seconds since the epoch; given when it is written."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided about a release. ``kind``: step, rollback, promotion, approval ...;
    ``subject``: the route, environment or stage that it is about."""

    release: str
    kind: str
    subject: str
    sentence: str
    actor: LedgerActor
    evidence: dict[str, Any] = {}
    id: str = ""
    at: float = 0.0


def write_verdict(connection: Connection, verdict: Verdict, now: float | None = None) -> Verdict:
    """Write ``verdict``; returns it with its id and time. UsageError: release_missing."""
    stamped = _stamped(verdict, now)
    connection.execute(
        "INSERT INTO verdicts (id, at, release, gate, value, reason, evidence, actor) "
        "VALUES (%s, to_timestamp(%s), %s, %s, %s, %s, %s, %s)",
        (
            stamped.id, stamped.at, stamped.release, stamped.gate, stamped.value, stamped.reason,
            Jsonb(stamped.evidence), Jsonb(msgspec.to_builtins(stamped.actor)),
        ),
    )  # fmt: skip
    return stamped


def write_decision(
    connection: Connection, decision: Decision, now: float | None = None
) -> Decision:
    """Write ``decision``; returns it with its id and time. UsageError: release_missing."""
    stamped = _stamped(decision, now)
    connection.execute(
        "INSERT INTO decisions (id, at, release, kind, subject, sentence, evidence, actor) "
        "VALUES (%s, to_timestamp(%s), %s, %s, %s, %s, %s, %s)",
        (
            stamped.id, stamped.at, stamped.release, stamped.kind, stamped.subject,
            stamped.sentence, Jsonb(stamped.evidence),
            Jsonb(msgspec.to_builtins(stamped.actor)),
        ),
    )  # fmt: skip
    return stamped


def verdicts_of(
    connection: Connection,
    *,
    release: str | None = None,
    gate: str | None = None,
    since: float | None = None,
    limit: int = 100,
) -> list[Verdict]:
    """Newest first; ``since``: seconds since the epoch."""
    rows = connection.execute(
        "SELECT release, gate, value, reason, actor, evidence, replace(id::text, '-', ''), "
        "extract(epoch FROM at)::float8 FROM verdicts "
        "WHERE (%(release)s::text IS NULL OR release = %(release)s) "
        "AND (%(gate)s::text IS NULL OR gate = %(gate)s) "
        "AND (%(since)s::timestamptz IS NULL OR at >= %(since)s) "
        "ORDER BY id DESC LIMIT %(limit)s",
        {"release": release, "gate": gate, "since": _moment(since), "limit": _bounded(limit)},
    ).fetchall()
    return [
        Verdict(
            release=row[0], gate=row[1], value=row[2], reason=row[3],
            actor=msgspec.convert(row[4], LedgerActor), evidence=row[5], id=row[6], at=row[7],
        )
        for row in rows
    ]  # fmt: skip


def decisions_of(
    connection: Connection,
    *,
    release: str | None = None,
    kind: str | None = None,
    since: float | None = None,
    limit: int = 100,
) -> list[Decision]:
    """Newest first; ``since``: seconds since the epoch."""
    rows = connection.execute(
        "SELECT release, kind, subject, sentence, actor, evidence, replace(id::text, '-', ''), "
        "extract(epoch FROM at)::float8 FROM decisions "
        "WHERE (%(release)s::text IS NULL OR release = %(release)s) "
        "AND (%(kind)s::text IS NULL OR kind = %(kind)s) "
        "AND (%(since)s::timestamptz IS NULL OR at >= %(since)s) "
        "ORDER BY id DESC LIMIT %(limit)s",
        {"release": release, "kind": kind, "since": _moment(since), "limit": _bounded(limit)},
    ).fetchall()
    return [
        Decision(
            release=row[0], kind=row[1], subject=row[2], sentence=row[3],
            actor=msgspec.convert(row[4], LedgerActor), evidence=row[5], id=row[6], at=row[7],
        )
        for row in rows
    ]  # fmt: skip


R = TypeVar("R", Verdict, Decision)


def _stamped(one: R, now: float | None) -> R:
    if not one.release:
        raise UsageError(
            "release_missing",
            "a verdict or decision must name the release that it is about",
            cure="give the digest of the release",
        )
    return msgspec.structs.replace(one, id=new_id(), at=time.time() if now is None else now)


def _moment(since: float | None) -> datetime | None:
    return None if since is None else datetime.fromtimestamp(since, UTC)


def _bounded(limit: int) -> int:
    return max(1, min(limit, MOST_ROWS))
