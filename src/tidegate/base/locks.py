"""An advisory file lock (flock(2)): one process at a time in a folder; it ends with its holder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class LockHeld(Exception):
    """Another process holds the lock; ``pid`` names it, when the file says so."""

    def __init__(self, path: Path, pid: int | None) -> None:
        super().__init__(f"{path} is held by process {pid or 'unknown'}")
        self.pid = pid


@contextmanager
def file_lock(
    path: Path, *, wait: float = 0.0, give_up: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Hold the lock ``path`` (made when missing, kept afterwards) and write our process id in it.

    Tries for ``wait`` seconds, or until ``give_up`` says yes; then LockHeld. The kernel frees it
    when the holder ends in any way.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        until = time.monotonic() + wait
        while not _try_lock(handle):
            if time.monotonic() >= until or give_up():
                raise LockHeld(path, _holder(handle))
            time.sleep(0.05)
        # Only the holder writes the file, and only to name itself: what counts is the lock.
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(handle: int) -> int | None:
    text = os.pread(handle, 32, 0).strip()
    return int(text) if text.isdigit() else None
