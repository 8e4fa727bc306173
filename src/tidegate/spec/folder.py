"""Reading files of the app folder: regular files inside it, of bounded size, and nothing else.

Every read of this room goes through here: a spec may come from somebody else, and must not name
``/etc/passwd``, a device or a pipe, by ``..`` or by a link.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tidegate.spec.mistakes import nearest

MOST_BYTES = 4 << 20


class Unreadable(Exception):
    """A file of the app folder cannot be used; ``nearest`` is a file that exists."""

    def __init__(self, message: str, nearest: str | None = None) -> None:
        super().__init__(message)
        self.message, self.nearest = message, nearest


def find(folder: Path, path: str) -> Path:
    """The regular file at ``path`` inside ``folder``, links followed. Raises Unreadable."""
    try:
        found = (folder / path).resolve(strict=True)
        mode = found.stat().st_mode
    except FileNotFoundError:
        raise Unreadable(f"there is no file {path}", _near(folder, path)) from None
    except (OSError, ValueError, RuntimeError) as error:
        raise Unreadable(f"{path} cannot be read: {_reason(error)}") from None
    if not found.is_relative_to(folder.resolve()):
        raise Unreadable(f"{path} leads out of the app folder")
    if stat.S_ISDIR(mode):
        raise Unreadable(f"{path} is a folder, not a file")
    if not stat.S_ISREG(mode):
        raise Unreadable(f"{path} is not a regular file")
    return found


def read(folder: Path, path: str, *, most: int = MOST_BYTES) -> bytes:
    """The bytes of a file inside ``folder``, at most ``most``. Raises Unreadable."""
    found = find(folder, path)
    try:
        with found.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {_reason(error)}") from None
    if len(data) > most:
        raise Unreadable(f"{path} is larger than {most >> 20} MiB")
    return data


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()


def _near(folder: Path, path: str) -> str | None:
    """A file of the same subfolder whose name is close."""
    parent, _, name = path.rpartition("/")
    try:
        with os.scandir(folder / parent) as entries:
            names = [entry.name for _, entry in zip(range(1000), entries, strict=False)]
    except OSError:
        return None
    found = nearest(name, names)
    return f"{parent}/{found}" if found and parent else found
