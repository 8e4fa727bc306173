"""One member of a zip archive as a stream; nothing else of the archive is read, written or run."""

from __future__ import annotations

import errno
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from tidegate.base import ArtifactError

CHUNK = 1 << 20
_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    IndexError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)


def find_member(archive: zipfile.ZipFile, pattern: str, max_bytes: int) -> zipfile.ZipInfo:
    """The one file that ``pattern`` (a glob whose ``*`` crosses ``/``) matches.

    Errors: member_missing, member_ambiguous, member_unsafe, artifact_too_large.
    """
    files = [info for info in archive.infolist() if not info.filename.endswith("/")]
    found = [info for info in files if fnmatchcase(info.filename, pattern)]
    if not found:
        largest = sorted(files, key=lambda info: -info.file_size)[:5]
        raise ArtifactError(
            "member_missing",
            f"no member of {archive.filename} matches {pattern!r}; its largest files are "
            + ", ".join(info.filename for info in largest),
            cure="set member: to a glob that matches one of them",
        )
    if len(found) > 1:
        raise ArtifactError(
            "member_ambiguous",
            f"{pattern!r} matches {len(found)} members: "
            + ", ".join(info.filename for info in found[:5]),
            cure="set member: to a glob that matches one of them only",
        )
    info = found[0]
    if info.filename.startswith("/") or ".." in info.filename.split("/"):
        raise ArtifactError(
            "member_unsafe",
            f"the member {info.filename!r} points out of its archive",
            cure="do not use this archive: no honest tool makes such a member",
        )
    if info.file_size > max_bytes:
        raise ArtifactError(
            "artifact_too_large",
            f"{info.filename} says that it unpacks to {info.file_size:,} bytes",
            cure="raise TIDEGATE_MAX_ARTIFACT_GIB if you trust it",
        )
    return info


def open_archive(path: Path) -> zipfile.ZipFile:
    """The zip at ``path``; error archive_broken."""
    with _sound(path):
        return zipfile.ZipFile(path)


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """The member in chunks, never more bytes than its entry states; error archive_broken."""
    with _sound(Path(str(archive.filename))), archive.open(info) as member:
        while chunk := member.read(CHUNK):
            yield chunk


@contextmanager
def _sound(path: Path) -> Iterator[None]:
    """Turn what the zip reader raises on damaged bytes into archive_broken (found by fuzzing)."""
    try:
        yield
    except _FAULTS as error:
        raise broken(path, str(error) or "it ends too early") from None
    except OSError as error:
        # bz2 has no errno; a seek to a false offset is EINVAL. Others are troubles of the disk.
        if error.errno not in {None, errno.EINVAL}:
            raise
        raise broken(path, str(error)) from None


def broken(path: Path, problem: str) -> ArtifactError:
    """The error for an archive that cannot be unpacked."""
    return ArtifactError(
        "archive_broken",
        f"{path.name} is not a sound zip archive: {problem}",
        cure="check that the pinned source is a wheel or zip file, and fetch it again",
    )
