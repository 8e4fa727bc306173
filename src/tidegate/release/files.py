"""Files of an app folder as a build reads them: relative paths, bytes, hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol

from tidegate.base import ReleaseError
from tidegate.release.values import Pinned

_CHUNK = 1 << 20


class FileReader(Protocol):
    """A reader of files by POSIX path relative to the app folder; gives their bytes in chunks."""

    def open(self, path: str) -> Iterator[bytes]: ...


class AppFiles:
    """The files below ``folder``. ``read`` holds the bytes of those that ``load`` has checked: they
    are not read again, since a file that is saved in between would be built unchecked.

    Errors: file_missing, file_outside, file_unreadable."""

    def __init__(self, folder: Path, read: Mapping[str, bytes] | None = None) -> None:
        self.folder = folder.resolve()
        self._read = {PurePosixPath(path).as_posix(): data for path, data in (read or {}).items()}

    def open(self, path: str) -> Iterator[bytes]:
        if path in self._read:
            yield self._read[path]
            return
        real = (self.folder / path).resolve()
        if not real.is_relative_to(self.folder):
            raise ReleaseError(
                "file_outside",
                f"{path} leads out of the app folder, to {real}",
                cure="keep the file itself in the app folder; links may not leave it",
            )
        try:
            with real.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
        except FileNotFoundError:
            raise ReleaseError(
                "file_missing",
                f"there is no file {path} in {self.folder}",
                cure="put the file there or mend its path; tidegate check names the line",
            ) from None
        except OSError as error:
            raise ReleaseError(
                "file_unreadable",
                f"{path} cannot be read: {error.strerror}",
                cure="make it a plain file that this user may read",
            ) from None


class Pins:
    """Pins of the files that a build reads. Each file is read once, so that text and hash agree."""

    def __init__(self, files: FileReader) -> None:
        self._files = files
        self._kept: dict[str, bytes] = {}
        self.pinned: dict[str, Pinned] = {}

    def pin(self, path: str) -> Pinned:
        """The pin of a file that may be large: its bytes are not kept."""
        name = PurePosixPath(path).as_posix()
        if name not in self.pinned:
            digest, size = hashlib.sha256(), 0
            for chunk in self._files.open(name):
                digest.update(chunk)
                size += len(chunk)
            self.pinned[name] = Pinned(path=name, sha256=digest.hexdigest(), size=size)
        return self.pinned[name]

    def read(self, path: str) -> tuple[Pinned, bytes]:
        """The pin and the bytes of a small file."""
        name = PurePosixPath(path).as_posix()
        if name not in self._kept:
            data = b"".join(self._files.open(name))
            digest = hashlib.sha256(data).hexdigest()
            self._kept[name] = data
            self.pinned[name] = Pinned(path=name, sha256=digest, size=len(data))
        return self.pinned[name], self._kept[name]

    def text(self, path: str) -> tuple[Pinned, str]:
        """The pin and the text of a UTF-8 file. Error: file_not_text."""
        pinned, data = self.read(path)
        try:
            return pinned, data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ReleaseError(
                "file_not_text",
                f"{pinned.path} is not UTF-8 text (byte {error.start})",
                cure="save it as UTF-8",
            ) from None
