"""Append receipts to a file of the worker's own, before the answer ends; survive ``kill -9``.

Format (read by ``spool_reader``): 8 bytes ``TGSPOOL1``, then records of ``<IIII`` (crc32 of the
bodies, and the lengths of the receipt JSON, the request content, the response content) and the
three bodies. The file is locked (flock) while its worker lives and writes to it; a file that
nobody locks is final. One ``write`` call a record: a killed process leaves a valid prefix.

When the disk is full the records wait in memory, within a bound, and are written in order as
soon as there is room. Nothing on the request path waits for that.
"""

from __future__ import annotations

import collections
import fcntl
import logging
import os
import time
import zlib
from pathlib import Path
from struct import Struct

import msgspec

from tidegate.base import new_id

log = logging.getLogger("tidegate.ledger.spool")

MAGIC = b"TGSPOOL1"
FRAME = Struct("<IIII")
_ROTATE_BYTES = 64 << 20
_ROTATE_SECONDS = 60.0
_WAITING_BYTES = 32 << 20


class SpoolStatistics(msgspec.Struct, frozen=True):
    """``dropped`` counts records lost because the disk stayed full for too long."""

    records: int
    waiting: int
    waiting_bytes: int
    dropped: int
    degraded: bool


class SpoolWriter:
    """One worker's spool. ``append`` never raises for a disk that is full or broken."""

    def __init__(
        self,
        folder: Path,
        *,
        rotate_bytes: int = _ROTATE_BYTES,
        rotate_seconds: float = _ROTATE_SECONDS,
        waiting_bytes: int = _WAITING_BYTES,
    ) -> None:
        self._folder = folder
        self._rotate_bytes = rotate_bytes
        self._rotate_seconds = rotate_seconds
        self._waiting_limit = waiting_bytes
        self._waiting: collections.deque[bytes] = collections.deque()
        self._waiting_bytes = 0
        self._records = self._dropped = self._size = 0
        self._opened = 0.0
        self._degraded = False
        self._handle = -1
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def append(self, receipt: bytes, request: bytes = b"", response: bytes = b"") -> None:
        """Write one record; on a disk error keep it in memory until ``retry`` succeeds."""
        bodies = receipt + request + response
        frame = FRAME.pack(zlib.crc32(bodies), len(receipt), len(request), len(response))
        record = frame + bodies
        self._records += 1
        if self._waiting:
            self._wait(record)
            self.retry()
        elif not self._write(record):
            self._wait(record)

    def retry(self) -> None:
        """Write what waits, oldest first; called with each record and by the worker's clock."""
        while self._waiting:
            if not self._write(self._waiting[0]):
                return
            self._waiting_bytes -= len(self._waiting.popleft())
        if self._degraded:
            self._degraded = False
            log.warning("receipts are written to the spool again")

    def tend(self) -> None:
        """Retry records that wait for the disk, and close a file that is old enough, so that it can
        be loaded."""
        self.retry()
        if self._size > len(MAGIC) and time.monotonic() - self._opened > self._rotate_seconds:
            self._close()

    def close(self) -> None:
        self.retry()
        self._close()

    def statistics(self) -> SpoolStatistics:
        return SpoolStatistics(
            self._records, len(self._waiting), self._waiting_bytes, self._dropped, self._degraded
        )

    def _wait(self, record: bytes) -> None:
        self._waiting.append(record)
        self._waiting_bytes += len(record)
        while self._waiting_bytes > self._waiting_limit:
            self._waiting_bytes -= len(self._waiting.popleft())
            self._dropped += 1

    def _write(self, record: bytes) -> bool:
        try:
            if self._handle < 0:
                self._open()
            written = os.write(self._handle, record)
        except OSError as error:
            self._degrade(error.strerror or str(error))
            return False
        if written < len(record):
            # A torn record ends a file for its reader, so cut it off and try again later.
            try:
                os.ftruncate(self._handle, self._size)
            except OSError:
                self._close()
            self._degrade("no space left on device")
            return False
        self._size += written
        if self._size >= self._rotate_bytes:
            self._close()
        return True

    def _open(self) -> None:
        path = self._folder / f"{new_id()}-{os.getpid()}.spool"
        part = path.with_suffix(".part")
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            # Locked before it gets the name by which a reader finds it.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.write(handle, MAGIC) != len(MAGIC):
                raise OSError(28, "no space left on device")
            os.rename(part, path)
        except OSError:
            os.close(handle)
            part.unlink(missing_ok=True)
            raise
        self._handle, self._size, self._opened = handle, len(MAGIC), time.monotonic()

    def _close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
        self._handle, self._size = -1, 0

    def _degrade(self, reason: str) -> None:
        if not self._degraded:
            self._degraded = True
            log.error("receipts cannot be written to %s (%s): kept in memory", self._folder, reason)
