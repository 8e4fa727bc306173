"""The columns of a receipt's row, declared once: COPY, SELECT and decoding all follow this table.

A field of ``Receipt`` without a line here lives in the JSON column ``more``, written when it is not
the field's default; so a new optional field needs no line and no migration. Give a field a column
of its own (and a migration) when questions filter or sort by it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from tidegate.base import Usage
from tidegate.ledger.receipts import Attempt, Receipt

_NULL = "\\N"
_SPECIAL = re.compile(r"[\\\t\n\r\x00]")
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\x00": "\ufffd"}
_MEMO_SIZE = 4096
_json = msgspec.json.Encoder()


def escape(text: str) -> str:
    """``text`` as one field of a COPY line. Strings come from clients; NUL, which PostgreSQL cannot
    hold, becomes U+FFFD."""
    return _SPECIAL.sub(lambda match: _ESCAPES[match[0]], text)


class _Fields(dict[str | None, str]):
    """``escape``, remembered: routes, models and outcomes repeat in every line."""

    def __missing__(self, value: str | None) -> str:
        field = _NULL if value is None else escape(value)
        if len(self) < _MEMO_SIZE:
            self[value] = field
        return field


class _Seconds(dict[int, str]):
    """Whole seconds since the epoch as ISO 8601 in UTC, remembered."""

    def __missing__(self, second: int) -> str:
        text = day_time(second).strftime("%Y-%m-%dT%H:%M:%S")
        if len(self) >= _MEMO_SIZE:
            self.clear()
        self[second] = text
        return text


_field = _Fields()
_second = _Seconds()


def day_time(at: float) -> datetime:
    """``at`` (seconds since the epoch) in UTC."""
    return datetime.fromtimestamp(at, UTC)


def json_field(value: Any) -> str:
    """``value`` as jsonb in a COPY line."""
    text = _json.encode(value).decode()
    return text.replace("\\u0000", "\\ufffd").replace("\\", "\\\\") if "\\" in text else text


def binary_field(data: bytes | None) -> str:
    """``data`` as bytea in a COPY line."""
    return _NULL if data is None else "\\\\x" + data.hex()


class Column(msgspec.Struct, frozen=True):
    """``write`` gives the field of a COPY line. ``read`` turns the selected value into that of the
    receipt's field ``name``; ``select`` is what is selected, where it is not the bare column."""

    name: str
    write: Callable[[Receipt], str]
    read: Callable[[Any], object] | None = None
    select: str | None = None


def _id(r: Receipt) -> str:
    if len(r.id) != 32 or not r.id.isalnum():
        raise ValueError("the id is not 32 hex digits")
    return r.id


def _at(r: Receipt) -> str:
    second = int(r.at)
    return f"{_second[second]}.{int((r.at - second) * 1e6):06d}+00"


def _same(value: object) -> object:
    return value


def _more(r: Receipt) -> str:
    rest = {name: value for name, default in _REST if (value := getattr(r, name)) != default}
    return json_field(rest) if rest else _NULL


def _usage(value: object) -> Usage | None:
    return None if value is None else msgspec.convert(value, Usage)


def _number(value: float | None) -> str:
    return _NULL if value is None else str(value)


def _tokens(name: str) -> Column:
    """A column of ``Receipt.usage``: decoded together, in ``decode_row``."""

    def write(r: Receipt) -> str:
        value = None if r.usage is None else getattr(r.usage, name)
        if isinstance(value, bool):
            return "t" if value else "f"
        return _NULL if value is None else str(value)

    column = name if name == "estimated" else f"{name}_tokens"
    return Column(column, write)


USAGE = ("prompt", "completion", "cached", "reasoning", "estimated")
"""Fields of ``Usage`` with a column each."""

COLUMNS: tuple[Column, ...] = (
    Column("id", _id, _same, "replace(id::text, '-', '')"),
    Column("at", _at, _same, "extract(epoch FROM at)::float8"),
    Column("kind", lambda r: _field[r.kind], _same),
    Column("status", lambda r: str(r.status), _same),
    Column("outcome", lambda r: r.outcome, _same),
    Column("purpose", lambda r: r.purpose, _same),
    Column("release", lambda r: _field[r.release], _same),
    Column("route", lambda r: _field[r.route], _same),
    Column("journey", lambda r: _field[r.journey], _same),
    Column("tenant", lambda r: _field[r.tenant], _same),
    Column("key", lambda r: _field[r.key], _same),
    Column("model", lambda r: _field[r.model], _same),
    Column("stream", lambda r: "t" if r.stream else "f", _same),
    Column("code", lambda r: _field[r.code], _same),
    Column("finish", lambda r: _field[r.finish], _same),
    *map(_tokens, USAGE),
    Column("replayed", lambda r: _NULL if r.replayed is None else json_field(r.replayed), _usage),
    Column("cost", lambda r: _number(r.cost), _same),
    Column("cache", lambda r: r.cache, _same),
    Column("stages", lambda r: json_field(r.stages), _same),
    Column("first_token", lambda r: _number(r.first_token), _same),
    Column("total", lambda r: str(r.total), _same),
    Column(
        "attempts",
        lambda r: json_field(r.attempts) if r.attempts else _NULL,
        lambda value: msgspec.convert(value or (), tuple[Attempt, ...]),
    ),
    Column("trace", lambda r: _NULL if r.trace is None else escape(r.trace[:64]), _same),
    Column("parent", lambda r: _NULL if r.parent is None else escape(r.parent), _same),
    Column("worker", lambda r: str(r.worker), _same),
    Column("queued", lambda r: _number(r.queued), _same),
    Column("capped", lambda r: _field[r.capped], _same),
    Column("served_by", lambda r: _field[r.served_by], _same),
    Column("variant", lambda r: _field[r.variant], _same),
    Column("variant_reason", lambda r: _field[r.variant_reason], _same),
    Column("more", _more),
)
_DECODED = tuple((at, column) for at, column in enumerate(COLUMNS) if column.read is not None)
_USAGE_AT = next(at for at, column in enumerate(COLUMNS) if column.name == "prompt_tokens")
_MORE_AT = len(COLUMNS) - 1
_WRITERS = tuple(column.write for column in COLUMNS)

_OWN = {column.name for column in COLUMNS} | {"usage"}
_REST = tuple(
    (field.name, field.default_factory() if callable(field.default_factory) else field.default)
    for field in msgspec.structs.fields(Receipt)
    if field.name not in _OWN
)
"""(name, default) of the fields that live in ``more``."""


BESIDE = ("request_sha", "response_sha", "position")
"""Columns of a row that are no fields of a receipt: the content, and the place in the order in
which receipts became visible (see ``cursor``)."""

NAMES = ", ".join([*(column.name for column in COLUMNS), *BESIDE])
"""The columns of a COPY line, in its order."""
SELECTED = ", ".join(column.select or column.name for column in COLUMNS)


def receipt_line(receipt: Receipt, request_sha: bytes | None, response_sha: bytes | None) -> str:
    """The fields of one COPY line but the last, ``position``. Raises ValueError or OverflowError
    for an id that is none and for an ``at`` that is no time."""
    fields = [write(receipt) for write in _WRITERS]
    fields += (binary_field(request_sha), binary_field(response_sha))
    return "\t".join(fields)


def decode_row(row: Sequence[Any]) -> Receipt:
    """The receipt of a row of ``SELECTED``; more columns may follow."""
    values: dict[str, Any] = dict(row[_MORE_AT] or {})
    for at, column in _DECODED:
        assert column.read is not None
        values[column.name] = column.read(row[at])
    if row[_USAGE_AT] is not None:
        told = row[_USAGE_AT : _USAGE_AT + len(USAGE)]
        values["usage"] = Usage(**dict(zip(USAGE, told, strict=True)))
    return Receipt(**values)
