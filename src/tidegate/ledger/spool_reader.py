"""Read the valid prefix of spool files; say when a file is final (format: see ``spool``).

A record is taken only when its checksum holds. What follows the first record that does not hold
is not read: in a file that its worker still writes it may become whole, in a file that nobody
locks any more it is the torn end that a kill or a full disk left.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tidegate.ledger.spool import FRAME, MAGIC

LARGEST_RECORD = 256 << 20
"""Bytes; a longer record is taken for corruption."""


class Record(NamedTuple):
    """The three bodies of one record; empty content means that none was kept."""

    receipt: bytes
    request: bytes
    response: bytes


class Chunk(NamedTuple):
    """Records from a place in a file; ``position`` is where the next one starts.

    ``rest`` is how many bytes follow that are not a valid record (yet); 0 at a clean end and
    while there is more to read (``more``).
    """

    records: list[Record]
    position: int
    rest: int
    more: bool


def spool_files(folder: Path) -> list[Path]:
    """The spool files in ``folder``, oldest first (their names start with a UUIDv7)."""
    try:
        return sorted(Path(e.path) for e in os.scandir(folder) if e.name.endswith(".spool"))
    except FileNotFoundError:
        return []


def read_chunk(path: Path, position: int, *, records: int, size: int) -> Chunk:
    """At most ``records`` records and about ``size`` bytes from ``position`` (0: the start).

    A record larger than ``size`` is still read, alone. Raises OSError as ``open`` does.
    """
    with path.open("rb", buffering=0) as file:
        length = os.fstat(file.fileno()).st_size
        if position == 0:
            if file.read(len(MAGIC)) != MAGIC:
                return Chunk([], 0, length, False)
            position = len(MAGIC)
        file.seek(position)
        data = file.read(size)
        if len(data) >= FRAME.size:
            first = FRAME.size + sum(FRAME.unpack_from(data)[1:])
            if len(data) < first <= min(length - position, LARGEST_RECORD):
                data += file.read(first - len(data))
    found, used = _parse(data, records)
    capped = len(found) == records or len(data) >= size
    more = bool(found) and capped and position + used < length
    rest = 0 if more else length - position - used
    return Chunk(found, position + used, rest, more)


def _parse(data: bytes, most: int) -> tuple[list[Record], int]:
    found: list[Record] = []
    at, header, end = 0, FRAME.size, len(data)
    unpack, crc = FRAME.unpack_from, zlib.crc32
    while len(found) < most and at + header <= end:
        checksum, first, second, third = unpack(data, at)
        body = at + header
        after = body + first + second + third
        if after > end or first == 0 or crc(data[body:after]) != checksum:
            break
        cut, cut2 = body + first, body + first + second
        found.append(Record(data[body:cut], data[cut:cut2], data[cut2:after]))
        at = after
    return found, at


@contextmanager
def owned(path: Path) -> Iterator[bool]:
    """Whether no worker holds the file any more; the block keeps it locked, so that none can."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def backlog(folder: Path) -> int:
    """Bytes in the spool files of ``folder`` that still exist."""
    total = 0
    for path in spool_files(folder):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total
