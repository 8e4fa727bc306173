"""Content as rows of PostgreSQL's binary COPY format, which needs no escapes of large bodies."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from struct import Struct

CONTENT_COLUMNS = "sha256, day, body"

_BINARY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_BINARY_END = b"\xff\xff"
_CONTENT_ROW = Struct(">hi32siii")
_EPOCH_OF_DATES = date(2000, 1, 1).toordinal()


def content_rows(contents: Iterable[tuple[bytes, date, bytes]]) -> bytes:
    """(sha256, day, body) of each."""
    parts = [_BINARY_HEADER]
    for digest, day, body in contents:
        days = day.toordinal() - _EPOCH_OF_DATES
        parts += (_CONTENT_ROW.pack(3, len(digest), digest, 4, days, len(body)), body)
    parts.append(_BINARY_END)
    return b"".join(parts)
