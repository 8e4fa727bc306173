"""Receipts as lines of PostgreSQL's COPY text format.

Strings come from clients, so they are escaped, and NUL, which PostgreSQL cannot hold, becomes
U+FFFD. The columns are those of ``RECEIPT_COLUMNS``, in that order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from struct import Struct
from typing import Any

import msgspec

from tidegate.ledger.receipts import Receipt

RECEIPT_COLUMNS = (
    "id, at, kind, status, outcome, release, route, journey, tenant, key, model, stream, code, "
    "finish, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, estimated, "
    "replayed, cost, cache, stages, first_token, total, attempts, trace, parent, worker, "
    "request_sha, response_sha, queued, capped, served_by, variant, variant_reason"
)
CONTENT_COLUMNS = "sha256, day, body"

_BINARY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_BINARY_END = b"\xff\xff"
_CONTENT_ROW = Struct(">hi32siii")
_EPOCH_OF_DATES = date(2000, 1, 1).toordinal()

_NULL = "\\N"
_SPECIAL = re.compile(r"[\\\t\n\r\x00]")
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\x00": "\ufffd"}
_MEMO_SIZE = 4096
_json = msgspec.json.Encoder()


def escape(text: str) -> str:
    """``text`` as one field of a COPY line."""
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


def json_field(value: Any) -> str:
    """``value`` as jsonb in a COPY line."""
    text = _json.encode(value).decode()
    return text.replace("\\u0000", "\\ufffd").replace("\\", "\\\\") if "\\" in text else text


def binary_field(data: bytes | None) -> str:
    """``data`` as bytea in a COPY line."""
    return _NULL if data is None else "\\\\x" + data.hex()


def receipt_line(receipt: Receipt, request_sha: bytes | None, response_sha: bytes | None) -> str:
    """One line without its line end. Raises ValueError or OverflowError for an id that is none
    and for an ``at`` that is no time."""
    r, field, usage = receipt, _field, receipt.usage
    if len(r.id) != 32 or not r.id.isalnum():
        raise ValueError("the id is not 32 hex digits")
    second = int(r.at)
    micros = int((r.at - second) * 1e6)
    tokens = (
        "\\N\t\\N\t\\N\t\\N\t\\N"
        if usage is None
        else f"{usage.prompt}\t{usage.completion}\t{usage.cached}\t{usage.reasoning}"
        f"\t{'t' if usage.estimated else 'f'}"
    )
    return (
        f"{r.id}\t{_second[second]}.{micros:06d}+00\t{field[r.kind]}\t{r.status}\t{r.outcome}\t"
        f"{field[r.release]}\t{field[r.route]}\t{field[r.journey]}\t{field[r.tenant]}\t"
        f"{field[r.key]}\t{field[r.model]}\t{'t' if r.stream else 'f'}\t{field[r.code]}\t"
        f"{field[r.finish]}\t{tokens}\t"
        f"{_NULL if r.replayed is None else json_field(r.replayed)}\t"
        f"{_NULL if r.cost is None else r.cost}\t{r.cache}\t{json_field(r.stages)}\t"
        f"{_NULL if r.first_token is None else r.first_token}\t{r.total}\t"
        f"{json_field(r.attempts) if r.attempts else _NULL}\t"
        f"{_NULL if r.trace is None else escape(r.trace[:64])}\t"
        f"{_NULL if r.parent is None else escape(r.parent)}\t{r.worker}\t"
        f"{binary_field(request_sha)}\t{binary_field(response_sha)}\t"
        f"{_NULL if r.queued is None else r.queued}\t{field[r.capped]}\t"
        f"{field[r.served_by]}\t{field[r.variant]}\t{field[r.variant_reason]}"
    )


def content_rows(contents: Iterable[tuple[bytes, date, bytes]]) -> bytes:
    """(sha256, day, body) as PostgreSQL's binary COPY, which needs no escapes of large bodies."""
    parts = [_BINARY_HEADER]
    for digest, day, body in contents:
        days = day.toordinal() - _EPOCH_OF_DATES
        parts += (_CONTENT_ROW.pack(3, len(digest), digest, 4, days, len(body)), body)
    parts.append(_BINARY_END)
    return b"".join(parts)


def day_time(at: float) -> datetime:
    """``at`` (seconds since the epoch) in UTC."""
    return datetime.fromtimestamp(at, UTC)
