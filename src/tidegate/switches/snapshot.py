"""Queries of the switches: what changed since a version, and all keys page by page.

One statement sees one version, whatever is written meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import psycopg

from tidegate.switches.rules import KeyRecord, KeyTable
from tidegate.switches.values import SECTIONS, Section, SwitchSnapshot

PAGE = 500
"""Keys that are read, decoded and put in force in one turn of a worker's loop; a difference of more
keys counts as too old."""

_MARK = "(SELECT (extract(epoch FROM at) * 1000000)::bigint FROM switch_changes WHERE version = {})"
VERSION_QUERY = f"SELECT v.version, {_MARK.format('v.version')} FROM switches_version v"
_KEY = (
    "json_build_object('id', id, 'name', name, 'tenant', tenant, 'hash', encode(hash, 'base64'),"
    " 'expires_at', extract(epoch FROM expires_at)::float8, 'revoked', revoked_at IS NOT NULL,"
    " 'priority', priority, 'version', version)"
)
KEY_PAGE_QUERY = (
    f"SELECT coalesce(json_agg({_KEY} ORDER BY id), '[]')::text FROM"
    f" (SELECT * FROM keys WHERE id > %s ORDER BY id LIMIT {PAGE}) page"
)


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What changed since the version that a reader has."""

    version: int
    mark: int | None
    whole: bool
    """The reader's version cannot be built upon: it has none, the versions went backwards, keys
    were deleted, or more keys than PAGE changed. Then every section is here and no key."""
    broken: bool
    """The reader's version is of another history than this database's."""
    sections: dict[str, msgspec.Raw]
    keys: tuple[KeyRecord, ...]


def _rows(section: Section) -> str:
    """The SQL expression of all rows of a section as JSON."""
    columns = ", ".join(f"'{name}', {name}" for name in section.row.__struct_fields__)
    row = f"json_build_object({columns})"
    if section.only:
        return f"(SELECT {row} FROM {section.table} WHERE {section.only})"
    order = ", ".join(section.order or section.key)
    return f"(SELECT coalesce(json_agg({row} ORDER BY {order}), '[]') FROM {section.table})"


def _changed(name: str, section: Section) -> str:
    """A row of (name, JSON) when the section changed since the reader's version."""
    return (
        f"SELECT '{name}', {_rows(section)} FROM base WHERE base.whole OR EXISTS (SELECT 1 FROM"
        f" switch_sections s WHERE s.section = '{name}' AND s.version > base.since)"
    )


DIFFERENCE_QUERY = f"""
WITH known AS MATERIALIZED (
  SELECT v.version, %(since)s::bigint AS since,
    v.version < %(since)s
      OR {_MARK.format("%(since)s")} IS DISTINCT FROM %(mark)s::bigint AS broken
  FROM switches_version v
), changed_keys AS MATERIALIZED (
  SELECT * FROM keys WHERE version > %(since)s AND %(since)s >= 0 ORDER BY version LIMIT {PAGE + 1}
), base AS MATERIALIZED (
  SELECT *, %(whole)s::boolean OR since < 0 OR broken
    OR (SELECT count(*) FROM changed_keys) > {PAGE}
    OR EXISTS (SELECT 1 FROM switch_sections WHERE section = 'keys gone' AND version > since)
    AS whole
  FROM known
)
SELECT json_build_object(
  'version', version, 'mark', {_MARK.format("base.version")}, 'whole', whole,
  'broken', broken AND since >= 0,
  'sections', (SELECT coalesce(json_object_agg(name, rows), '{{}}') FROM (
    {" UNION ALL ".join(_changed(name, section) for name, section in SECTIONS.items())}
  ) AS changed (name, rows)),
  'keys', CASE WHEN whole THEN '[]'
    ELSE (SELECT coalesce(json_agg({_KEY} ORDER BY id), '[]') FROM changed_keys) END
)::text FROM base
"""
Known = dict[str, int | None]
"""Parameters of DIFFERENCE_QUERY: where a reader stands, and whether it wants everything anew."""

_difference = msgspec.json.Decoder(Difference)
_page = msgspec.json.Decoder(tuple[KeyRecord, ...])
_sections = {
    field.name: msgspec.json.Decoder(field.type)
    for field in msgspec.structs.fields(SwitchSnapshot)
    if field.name in SECTIONS
}


def difference_of(row: tuple[str] | None) -> Difference:
    """The value of the row of DIFFERENCE_QUERY. Raises psycopg.DataError where it has none."""
    if row is None:
        raise psycopg.DataError("the table switches_version has lost its row")
    return _difference.decode(row[0])


def page_of(row: tuple[str] | None) -> tuple[KeyRecord, ...]:
    """The value of the row of KEY_PAGE_QUERY."""
    return () if row is None else _page.decode(row[0])


class SwitchTables:
    """Every switch as one reader has it: the snapshot, and the keys beside it.

    ``apply`` does not wait, so no request sees half of a difference.
    """

    def __init__(
        self, snapshot: SwitchSnapshot | None = None, keys: KeyTable | None = None
    ) -> None:
        self.snapshot = snapshot
        self.keys = KeyTable() if keys is None else keys

    def known(self, *, whole: bool = False) -> Known:
        now = self.snapshot
        since, mark = (-1, None) if now is None else (now.version, now.mark)
        return {"since": since, "mark": mark, "whole": whole}

    def apply(self, fresh: Difference, every_key: KeyTable | None = None) -> None:
        """Take what changed; with ``every_key``, a whole one that replaces what was here."""
        now = self.snapshot or SwitchSnapshot(version=0)
        if every_key is not None:
            self.keys = every_key
        self.keys.put(fresh.keys)
        self.snapshot = msgspec.structs.replace(
            now,
            version=fresh.version,
            mark=fresh.mark,
            history=now.history + fresh.broken,
            **{name: _sections[name].decode(raw) for name, raw in fresh.sections.items()},
        )


def snapshot(connection: psycopg.Connection) -> SwitchSnapshot:
    """Every switch but the keys at one version, read in one statement."""
    tables = SwitchTables()
    tables.apply(difference_of(connection.execute(DIFFERENCE_QUERY, tables.known()).fetchone()))
    assert tables.snapshot is not None
    return tables.snapshot


def key_records(connection: psycopg.Connection) -> Iterator[KeyRecord]:
    """Every key as a gateway needs it, by id."""
    last = ""
    while page := page_of(connection.execute(KEY_PAGE_QUERY, (last,)).fetchone()):
        yield from page
        last = page[-1].id
