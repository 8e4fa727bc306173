"""Use of a route over all workers of a gateway: one row of each worker in shared memory.

A worker owns its row and is the only one that writes it; it reads all. Places are taken under a
file lock that nobody waits for, given back without one. A row is its worker's for as long as that
lives: it holds a lock of its own, which the kernel frees however it ends, and whoever notices
clears the row. So a worker that was killed gives its places back.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tidegate.base import RuntimeStateError

ROWS = 128
_WIDTH = 8
_IN_USE, _WAITING, _SINCE, _BEAT, _SERVICE, _TOOK = 0, 1, 4, 5, 6, 7
_ROW_BYTES = _WIDTH * 8
FILE_BYTES = (ROWS + 1) * _ROW_BYTES
"""A first row, whose first figure is how many rows were ever used, and one for each worker."""
_TRIES = 40
FRESH = 0.25
"""Seconds without a beat after which those who wait in a worker stand before nobody elsewhere."""
STALE = 60.0
"""Seconds without a new place after which a worker's service time counts no more."""


class Row:
    """A worker's own number among those that share the folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        for number in range(ROWS):
            lock = try_lock(row_lock(folder, number))
            if lock is not None:
                self.number, self._lock = number, lock
                self._clear()
                return
        raise RuntimeStateError(
            "workers_too_many",
            f"{ROWS} workers share {folder} already",
            cure="run fewer workers",
        )

    def close(self) -> None:
        os.close(self._lock)

    def _clear(self) -> None:
        """Clear the row on every route: the worker that had it before may have died with places."""
        for path in self.folder.glob("*.slots"):
            handle = os.open(path, os.O_RDWR)
            try:
                if os.fstat(handle).st_size >= FILE_BYTES:
                    os.pwrite(handle, bytes(_ROW_BYTES), (self.number + 1) * _ROW_BYTES)
            finally:
                os.close(handle)


def row_lock(folder: Path, number: int) -> Path:
    return folder / f"worker-{number}.lock"


def try_lock(path: Path) -> int | None:
    """A handle that holds the lock ``path`` until it is closed; None when another holds it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


class Seen(msgspec.Struct, frozen=True):
    """All rows together. ``first``: (class, since) of who waits longest in the highest class in
    another worker; None when nobody waits there. ``quiet``: seconds since a place was last taken,
    so that each place has been held for as long at least; 0 when none is."""

    in_use: int
    waiting: tuple[int, int, int]
    service: float
    first: tuple[int, float] | None
    quiet: float


class Slots:
    """The rows of one route. Times are ``time.monotonic()``, which all processes share."""

    def __init__(self, row: Row, route: str) -> None:
        self._row = row
        path = row.folder / f"{route}.slots"
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if os.fstat(self._file).st_size < FILE_BYTES:
            os.ftruncate(self._file, FILE_BYTES)
        self._map = mmap.mmap(self._file, FILE_BYTES)
        # One aligned store for each figure: a reader never sees half of one.
        self._cells = memoryview(self._map).cast("d")
        self._at = (row.number + 1) * _WIDTH
        self._clear(self._at)

    def close(self) -> None:
        self._clear(self._at)
        self._cells.release()
        self._map.close()
        os.close(self._file)

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Hold the lock of the rows; False when another worker keeps it: a worker that was stopped
        inside it must not stop the loops of all others."""
        held = False
        for _ in range(_TRIES):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = True
                break
            except BlockingIOError:
                os.sched_yield()
        try:
            yield held
        finally:
            if held:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    # -- this worker's row ----------------------------------------------------------------------

    def take(self, places: int, now: float) -> None:
        """Write that this worker now holds ``places``, one more than before."""
        self._cells[self._at + _TOOK] = now
        self._cells[self._at + _IN_USE] = places
        self._cells[0] = max(self._cells[0], self._row.number + 1)

    def use(self, places: int) -> None:
        """Write that this worker now holds ``places``, one fewer than before."""
        self._cells[self._at + _IN_USE] = places

    def wait(self, counts: tuple[int, int, int], since: float, now: float) -> None:
        """Write who waits in this worker. ``counts``: by class; ``since``: when the first of them
        came."""
        cells, at = self._cells, self._at
        cells[0] = max(cells[0], self._row.number + 1)
        cells[at + _SINCE] = since
        cells[at + _BEAT] = now
        for kind, count in enumerate(counts):
            cells[at + _WAITING + kind] = count

    def serve(self, seconds: float) -> None:
        self._cells[self._at + _SERVICE] = seconds

    # -- all rows -------------------------------------------------------------------------------

    def see(self, now: float) -> Seen:
        """The figures of all workers at ``now``."""
        cells = self._cells
        end = (int(cells[0]) + 1) * _WIDTH
        in_use, high, normal, low = (int(sum(cells[_WIDTH + n : end : _WIDTH])) for n in range(4))
        services = cells[_WIDTH + _SERVICE : end : _WIDTH]
        takes = cells[_WIDTH + _TOOK : end : _WIDTH]
        known = [
            one for one, at in zip(services, takes, strict=True) if one > 0 and now - at < STALE
        ]
        first: tuple[int, float] | None = None
        if high or normal or low:
            for at in range(_WIDTH, end, _WIDTH):
                if at == self._at or now - cells[at + _BEAT] > FRESH:
                    continue
                for kind in (0, 1, 2):
                    if cells[at + _WAITING + kind]:
                        mine = (kind, cells[at + _SINCE])
                        first = mine if first is None or mine < first else first
                        break
        service = sum(known) / len(known) if known else 0.0
        quiet = now - max(takes, default=now) if in_use else 0.0
        return Seen(in_use, (high, normal, low), service, first, quiet)

    def reap(self) -> None:
        """Clear the rows of workers that are no more."""
        for number in range(int(self._cells[0])):
            at = (number + 1) * _WIDTH
            if at == self._at or not any(self._cells[at : at + _WAITING + 3]):
                continue
            lock = try_lock(row_lock(self._row.folder, number))
            if lock is not None:
                self._clear(at)
                os.close(lock)

    def _clear(self, at: int) -> None:
        for cell in range(at, at + _WIDTH):
            self._cells[cell] = 0.0
