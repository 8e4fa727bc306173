"""A reader of the spool files of one folder: the new records, and which files are finished."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from tidegate.ledger.spool import MAGIC
from tidegate.ledger.spool_reader import Record, owned, read_chunk, spool_files

log = logging.getLogger("tidegate.ledger")

SETTLED_SECONDS = 2.0
"""A file that did not change for so long is looked at for its end."""
_STALE_PART_SECONDS = 60.0


class Gathered(NamedTuple):
    """``positions``: file name to where its next record starts once ``records`` are stored."""

    records: list[Record]
    positions: dict[str, int]
    more: bool


class SpoolCursor:
    """Positions in the files of ``folder``; they move only when ``advance`` is called."""

    def __init__(self, folder: Path, positions: Mapping[str, int]) -> None:
        self._folder = folder
        self._positions = dict(positions)
        self._exhausted: dict[str, tuple[int, int]] = {}

    def gather(self, *, records: int, size: int) -> Gathered:
        """The next records, oldest file first: at most ``records``, about ``size`` bytes."""
        found: list[Record] = []
        positions: dict[str, int] = {}
        for path in spool_files(self._folder):
            name = path.name
            try:
                version = _version(path)
                if self._exhausted.get(name) == version:
                    continue
                at = self._positions.get(name, 0)
                chunk = read_chunk(path, at, records=records - len(found), size=size)
            except FileNotFoundError:
                continue
            if chunk.records:
                found += chunk.records
                positions[name] = chunk.position
            elif not chunk.more:
                self._exhausted[name] = version
            if chunk.more or len(found) >= records:
                return Gathered(found, positions, True)
        return Gathered(found, positions, False)

    def advance(self, positions: Mapping[str, int]) -> None:
        self._positions.update(positions)

    def finished(self, now: Callable[[], float] = time.time) -> list[Path]:
        """Files without an owner of which every valid record lies behind the position."""
        done = []
        for path in spool_files(self._folder):
            try:
                if now() - path.stat().st_mtime < SETTLED_SECONDS:
                    continue
            except FileNotFoundError:
                continue
            with owned(path) as free:
                if free and self._at_end(path):
                    done.append(path)
        return done

    def remove(self, path: Path) -> None:
        """Delete a finished file; a damaged one that was never a spool is kept under a new name."""
        position = self._positions.pop(path.name, 0)
        self._exhausted.pop(path.name, None)
        rest = path.stat().st_size - max(position, len(MAGIC))
        if not _begins_as_spool(path):
            log.error("%s is not a spool file: kept as %s.damaged", path, path.name)
            path.rename(path.with_name(f"{path.name}.damaged"))
            return
        if rest > 0:
            log.warning("%s ends in %d bytes of a torn record, which nobody sent", path.name, rest)
        path.unlink(missing_ok=True)

    def sweep_parts(self, now: Callable[[], float] = time.time) -> None:
        """Delete what a worker left that was killed between making a file and naming it."""
        for path in self._folder.glob("*.part"):
            try:
                if now() - path.stat().st_mtime < _STALE_PART_SECONDS:
                    continue
                handle = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
            except BlockingIOError:
                continue
            finally:
                os.close(handle)

    def behind(self) -> int:
        """Bytes in the folder that lie after the positions."""
        total = 0
        for path in spool_files(self._folder):
            try:
                version = _version(path)
            except FileNotFoundError:
                continue
            if self._exhausted.get(path.name) != version:
                total += version[0] - self._positions.get(path.name, 0)
        return total

    def _at_end(self, path: Path) -> bool:
        chunk = read_chunk(path, self._positions.get(path.name, 0), records=1, size=1 << 16)
        return not chunk.records


def _begins_as_spool(path: Path) -> bool:
    """Also true for a file that was cut within its header."""
    with path.open("rb") as file:
        return MAGIC.startswith(file.read(len(MAGIC)))


def _version(path: Path) -> tuple[int, int]:
    """Size and time of change: a torn record may be cut off and replaced by one as long."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
