"""Writing to disk: atomic, one writer at a time, and errors of the disk with their cure."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from tidegate.base import DiskError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def locked(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold an exclusive ``flock`` on ``path``; ``waiting`` is called once when another holds it.

    The kernel lets go when the process ends, however it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is not None:
                waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, chunks: Iterable[bytes], part_folder: Path) -> None:
    """Replace ``path`` by ``chunks``, atomically, through a file in ``part_folder`` (same file
    system)."""
    part_folder.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_folder / f"{uuid4().hex}.part"
    try:
        with part.open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
            # Order matters: after a power cut a name must never lead to a file without its bytes.
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def need_room(folder: Path, size: int) -> None:
    """Refuse ``size`` bytes that cannot fit below ``folder``, before they are fetched."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OSError(errno.ENOSPC, f"{size:,} bytes are needed, {free:,} are free", str(folder))


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Block whose OSError becomes a DiskError: disk_full, not_writable or disk_failed."""
    try:
        yield
    except OSError as error:
        where = error.filename or folder
        if error.errno in _FULL:
            raise DiskError(
                "disk_full",
                f"no room to write {where}: {error.strerror}",
                cure=f"make room on the disk of {folder} and run it again",
            ) from error
        if error.errno in _DENIED:
            raise DiskError(
                "not_writable",
                f"this user may not use {where}: {error.strerror}",
                cure=f"give this user the right to read and write {folder}",
            ) from error
        raise DiskError(
            "disk_failed",
            f"{where}: {error.strerror or error}",
            cure=f"check that {folder} is a folder on a healthy disk and run it again",
        ) from error
