"""Writers of the switches: kills, caps, traffic weights, flags, provider keys. Each call is one
change at one version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime

import msgspec
import psycopg
from psycopg import sql

from tidegate.base import UsageError
from tidegate.switches.changes import Change, Draft, changing, user_name
from tidegate.switches.snapshot import snapshot
from tidegate.switches.values import (
    SECTIONS,
    Cap,
    FlagDocument,
    Kill,
    KillKind,
    SecretKey,
    Weight,
)


class Author(msgspec.Struct, frozen=True, kw_only=True):
    """Who changes a switch, and why."""

    by: str | None = None
    """None: the user of the operating system."""
    reason: str | None = None


class FlagVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One flag document that was ever in force."""

    number: int
    made_at: datetime
    made_by: str
    reason: str | None
    flags: int
    """How many flags it holds."""
    in_force: bool


def set_row(
    connection: psycopg.Connection, section: str, row: msgspec.Struct, what: str, author: Author
) -> Change:
    """Insert or replace one row of a section. ``what`` describes the change for people."""
    found = SECTIONS[section]
    with _changing(connection, what, author) as draft:
        key = {name: getattr(row, name) for name in found.key}
        draft.old, draft.new = _row(connection, section, key), row
        columns = found.row.__struct_fields__
        others = [name for name in columns if name not in found.key]
        connection.execute(
            sql.SQL(
                "INSERT INTO {table} ({columns}) VALUES ({values})"
                " ON CONFLICT ({key}) DO UPDATE SET {update}"
            ).format(
                table=sql.Identifier(found.table),
                columns=_list(map(sql.Identifier, columns)),
                values=_list(sql.Placeholder() for _ in columns),
                key=_list(map(sql.Identifier, found.key)),
                update=_list(
                    sql.SQL("{0} = excluded.{0}").format(sql.Identifier(n)) for n in others
                ),
            ),
            [getattr(row, name) for name in columns],
        )
    return _made(draft)


def lift_row(
    connection: psycopg.Connection,
    section: str,
    key: Mapping[str, object],
    what: str,
    missing: UsageError,
    author: Author,
) -> Change:
    """Delete the row of a section that has this key. Raises ``missing`` when there is none."""
    found = SECTIONS[section]
    with _changing(connection, what, author) as draft:
        draft.old = _row(connection, section, key)
        if draft.old is None:
            raise missing
        same = [sql.SQL("{} = {}").format(sql.Identifier(n), sql.Placeholder()) for n in key]
        query = sql.SQL("DELETE FROM {} WHERE {}")
        connection.execute(
            query.format(sql.Identifier(found.table), sql.SQL(" AND ").join(same)),
            list(key.values()),
        )
    return _made(draft)


def kill(connection: psycopg.Connection, wanted: Kill, author: Author) -> Change:
    """Refuse what ``wanted`` names, from now on. What is killed already is killed as said now."""
    what = f"kill {_kill_words(wanted.kind, wanted.name)}"
    return set_row(connection, "kills", wanted, what, author)


def lift_kill(connection: psycopg.Connection, kind: KillKind, name: str, author: Author) -> Change:
    """Lift a kill. UsageError ``kill_unknown`` when it is not killed."""
    what = _kill_words(kind, name)
    missing = UsageError(
        "kill_unknown", f"{what} is not killed", cure="see what is: tidegate switches"
    )
    key = {"kind": kind, "name": name}
    return lift_row(connection, "kills", key, f"lift kill {what}", missing, author)


def set_cap(
    connection: psycopg.Connection, wanted: Cap, author: Author, *, by_load: bool = False
) -> Change:
    """Cap a route, or all; what ``wanted`` leaves open stays as it was. ``by_load``: the load alone
    decides again whether the release's cap under load holds."""
    where = wanted.route or "every route"
    with _changing(connection, f"cap {where}", author) as draft:
        draft.old = _row(connection, "caps", {"route": wanted.route})
        connection.execute(
            "INSERT INTO caps (route, prompt_tokens, output_tokens, surge, reason)"
            " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (route) DO UPDATE SET"
            " prompt_tokens = coalesce(excluded.prompt_tokens, caps.prompt_tokens),"
            " output_tokens = coalesce(excluded.output_tokens, caps.output_tokens),"
            " surge = CASE WHEN %s THEN NULL ELSE coalesce(excluded.surge, caps.surge) END,"
            " reason = excluded.reason",
            (
                wanted.route,
                wanted.prompt_tokens,
                wanted.output_tokens,
                wanted.surge,
                wanted.reason,
                by_load,
            ),
        )
        connection.execute(  # a cap that caps nothing is none
            "DELETE FROM caps WHERE route = %s"
            " AND prompt_tokens IS NULL AND output_tokens IS NULL AND surge IS NULL",
            (wanted.route,),
        )
        draft.new = _row(connection, "caps", {"route": wanted.route})
    return _made(draft)


def lift_cap(connection: psycopg.Connection, route: str, author: Author) -> Change:
    """Take every cap set by hand from a route, or those for all. UsageError ``cap_unknown``."""
    where = route or "every route"
    missing = UsageError(
        "cap_unknown",
        f"no cap is set by hand for {where}",
        cure="see what is: tidegate switches",
    )
    return lift_row(connection, "caps", {"route": route}, f"lift cap {where}", missing, author)


def set_traffic(
    connection: psycopg.Connection, route: str, weights: Sequence[Weight], author: Author
) -> Change:
    """Divide a route's requests (or those of all routes without weights of their own) over
    releases; no weights: the release that the gateway was started with serves them. UsageError
    ``weights_unknown`` when there are none to lift."""
    where = route or "every route"
    word = "traffic" if weights else "lift traffic"
    with _changing(connection, f"{word} {where}", author) as draft:
        draft.old = _weights(connection, route)
        if not weights and draft.old is None:
            raise UsageError(
                "weights_unknown",
                f"no weights are set for {where}",
                cure="see what is: tidegate traffic",
            )
        draft.new = {one.release: one.weight for one in weights} or None
        connection.execute("DELETE FROM traffic WHERE route = %s", (route,))
        for place, one in enumerate(weights):
            connection.execute(
                "INSERT INTO traffic (route, place, release, weight) VALUES (%s, %s, %s, %s)",
                (route, place, one.release, one.weight),
            )
    return _made(draft)


def set_secret_key(connection: psycopg.Connection, wanted: SecretKey, author: Author) -> Change:
    """Set the state of one provider key."""
    what = f"secret {wanted.secret} key {wanted.fingerprint} {wanted.state}"
    return set_row(connection, "secrets", wanted, what, author)


def set_flags(connection: psycopg.Connection, body: str, hash_form: str, author: Author) -> Change:
    """Put a flag document in force; it was checked before."""
    with _changing(connection, "flag set", author) as draft:
        draft.old = {"document": _flags_in_force(connection)}
        row = connection.execute("SELECT coalesce(max(number), 0) + 1 FROM flag_documents")
        number = int((row.fetchone() or (1,))[0])
        connection.execute(
            "INSERT INTO flag_documents (number, body, hash, made_by, reason)"
            " VALUES (%s, %s, %s, %s, %s)",
            (number, body, hash_form, author.by or user_name(), author.reason),
        )
        connection.execute("UPDATE flags_in_force SET number = %s", (number,))
        draft.new = {"document": number}
    return _made(draft)


def rollback_flags(connection: psycopg.Connection, to: int | None, author: Author) -> Change:
    """Put the document ``to`` in force again, or the one before the present one; 0 is none: the
    flags that each release pins. UsageError ``flags_unknown``."""
    with _changing(connection, "flag rollback", author) as draft:
        now = _flags_in_force(connection)
        known = [row[0] for row in connection.execute("SELECT number FROM flag_documents")]
        wanted = max((n for n in known if now and n < now), default=0) if to is None else to
        if (to is None and not now) or (wanted and wanted not in known):
            raise UsageError(
                "flags_unknown",
                f"there is no flag document {wanted}" if to else "no flag document is in force",
                cure="see the documents: tidegate flag list",
            )
        connection.execute("UPDATE flags_in_force SET number = %s", (wanted or None,))
        draft.old, draft.new = {"document": now}, {"document": wanted}
    return _made(draft)


def flag_document(connection: psycopg.Connection, number: int | None) -> FlagDocument | None:
    """The document in force, or the one with this number."""
    if number is None:
        return snapshot(connection).flags
    row = connection.execute(
        "SELECT number, body, hash FROM flag_documents WHERE number = %s", (number,)
    ).fetchone()
    return None if row is None else FlagDocument(number=row[0], body=row[1], hash=row[2])


def list_flags(connection: psycopg.Connection) -> tuple[FlagVersion, ...]:
    """Every document, the newest first."""
    now = _flags_in_force(connection)
    rows = connection.execute(
        "SELECT number, made_at, made_by, reason, body FROM flag_documents ORDER BY number DESC"
    )
    return tuple(
        FlagVersion(
            number=number,
            made_at=made_at.astimezone(UTC),
            made_by=made_by,
            reason=reason,
            flags=len(msgspec.json.decode(body)["flags"]),
            in_force=number == now,
        )
        for number, made_at, made_by, reason, body in rows
    )


def _changing(
    connection: psycopg.Connection, what: str, author: Author
) -> AbstractContextManager[Draft]:
    return changing(connection, what, by=author.by, reason=author.reason)


def _made(draft: Draft) -> Change:
    assert draft.made is not None
    return draft.made


def _kill_words(kind: str, name: str) -> str:
    return f"prompts of {name or 'every route'}" if kind == "prompts" else f"{kind} {name}"


def _row(
    connection: psycopg.Connection, section: str, key: Mapping[str, object]
) -> msgspec.Struct | None:
    """The row of a section with this key, as it is in force."""
    rows: Iterable[msgspec.Struct] = getattr(snapshot(connection), section)
    return next((row for row in rows if all(getattr(row, n) == v for n, v in key.items())), None)


def _list(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def _weights(connection: psycopg.Connection, route: str) -> dict[str, int] | None:
    found = snapshot(connection).traffic
    return {one.release: one.weight for one in found if one.route == route} or None


def _flags_in_force(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT number FROM flags_in_force").fetchone()
    return int(row[0]) if row is not None and row[0] is not None else 0
