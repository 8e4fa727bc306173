"""The artifact cache: model files by sha256, one cache for all apps of a user, each file whole or
absent.

``<cache>/artifacts/sha256/ab/<hex>`` holds the files, ``locks/`` one lock per file,
``work/<hex>/`` what is on its way. A work folder is used only under the lock of its file, and is
gone afterwards, except for the part of a download that broke off and can go on.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from tidegate.base import ArtifactError, sha256_file
from tidegate.registry.archive import CHUNK, find_member, open_archive, read_member
from tidegate.registry.disk import disk_errors, locked, need_room, sync_folder
from tidegate.registry.ports import Job, Obtained, Progress, quiet
from tidegate.registry.settings import FetchSettings, read_settings
from tidegate.registry.sources import SOURCES, https
from tidegate.release import Artifact

_HEX = re.compile(r"[0-9a-f]{64}")


class Store(msgspec.Struct, frozen=True):
    """The artifact cache of one user."""

    settings: FetchSettings

    @property
    def root(self) -> Path:
        return self.settings.cache / "artifacts"

    def path(self, sha256: str) -> Path:
        """Where the file with this hash lies, or would."""
        if not _HEX.fullmatch(sha256):
            raise ArtifactError(
                "bad_pin",
                f"{sha256!r} is not a sha256: 64 lower-case hex digits",
                cure="set sha256: to what sha256sum prints for the file",
            )
        return self.root / "sha256" / sha256[:2] / sha256


class Stamp(msgspec.Struct, frozen=True):
    """Size and modification time of a stored file when its hash was last verified, kept beside it,
    so that gigabytes are not hashed at every start."""

    size: int
    mtime_ns: int


def open_store(environment: Mapping[str, str]) -> Store:
    """The store that the environment names (TIDEGATE_CACHE, otherwise ~/.cache/tidegate)."""
    return Store(read_settings(environment))


def locate(artifact: Artifact, store: Store) -> Path | None:
    """The stored file, or None. A file that was touched since it was verified is hashed again."""
    path = store.path(artifact.sha256)
    with disk_errors(store.root):
        try:
            if _stamp(path) == _read_stamp(path):
                return path
            if sha256_file(path)[0] != artifact.sha256:
                return None
        except (FileNotFoundError, NotADirectoryError):
            return None
        with suppress(OSError):
            # A cache that may only be read serves all the same; it is hashed again next time.
            _write_stamp(path)
        return path


def fetch(
    artifact: Artifact, store: Store, progress: Progress = quiet, *, app: Path = Path()
) -> Path:
    """The file of ``artifact``, fetched now if it is not stored yet; ``app`` is the base of
    ``file:`` paths.

    Two processes that want one file fetch it once. Raises ArtifactError or DiskError; after a wrong
    hash or a full disk nothing is left behind.
    """
    if (path := locate(artifact, store)) is not None:
        return path
    if store.settings.offline and artifact.source != "file":
        raise _offline(artifact, store)
    lock = store.root / "locks" / f"{artifact.sha256}.lock"

    def waiting() -> None:
        progress("wait for another process that fetches the same file", 0, None)

    with disk_errors(store.root), locked(lock, waiting):
        # Again, now under the lock: another process may have fetched it while this one waited.
        if (path := locate(artifact, store)) is not None:
            return path
        with _work_folder(store, artifact) as work:
            settings = store.settings
            job = Job(artifact=artifact, work=work, app=app, settings=settings, progress=progress)
            return _place(job, SOURCES[artifact.source](job), store.path(artifact.sha256))


def _place(job: Job, got: Obtained, path: Path) -> Path:
    """Verify what was obtained and move it to ``path``."""
    artifact = job.artifact
    if artifact.source_sha256:
        _check(artifact, "source_sha256", got.sha256 or sha256_file(got.path)[0])
    if got.ours and not got.archive and got.sha256:
        ready, digest = got.path, got.sha256
    else:
        ready = job.work / "final"
        digest = _copy(job, got, ready)
    _check(artifact, "sha256", digest)
    ready.chmod(0o444)
    with ready.open("rb") as file:
        os.fsync(file.fileno())
    path.parent.mkdir(parents=True, exist_ok=True)
    os.replace(ready, path)
    sync_folder(path.parent)
    _write_stamp(path)
    return path


def _copy(job: Job, got: Obtained, target: Path) -> str:
    """Stream the file, or its one member, to ``target``; the sha256 of what was written."""
    if not got.archive:
        return _pour(job, _chunks(got.path), got.path.stat().st_size, target)
    with open_archive(got.path) as archive:
        member = find_member(archive, job.artifact.member or "", job.settings.max_bytes)
        return _pour(job, read_member(archive, member), member.file_size, target)


def _pour(job: Job, chunks: Iterable[bytes], total: int, target: Path) -> str:
    need_room(job.work, total)
    digest, done = hashlib.sha256(), 0
    with target.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            job.progress(f"unpack and verify {job.artifact.ref}", done, total)
    return digest.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _check(artifact: Artifact, which: str, have: str) -> None:
    want = getattr(artifact, which)
    if have != want:
        raise ArtifactError(
            "artifact_hash_mismatch",
            f"{artifact.source}: {artifact.ref} has {which} {have}, pinned is {want}",
            cure=f"do not use it; if the pin is wrong, mend {which} in tidegate.yaml",
        )


@contextmanager
def _work_folder(store: Store, artifact: Artifact) -> Iterator[Path]:
    """A folder for this artifact alone, removed unless a download in it can be resumed."""
    work = store.root / "work" / artifact.sha256
    work.mkdir(parents=True, exist_ok=True)
    keep = False
    try:
        yield work
    except ArtifactError as error:
        keep = error.code == "artifact_interrupted"
        raise
    except KeyboardInterrupt:
        keep = (work / https.PART).exists()
        raise
    finally:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return Stamp(status.st_size, status.st_mtime_ns)


def _read_stamp(path: Path) -> Stamp | None:
    try:
        return msgspec.json.decode(path.with_suffix(".stamp").read_bytes(), type=Stamp)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _write_stamp(path: Path) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(msgspec.json.encode(_stamp(path)))
    os.replace(part, path.with_suffix(".stamp"))


def _offline(artifact: Artifact, store: Store) -> ArtifactError:
    return ArtifactError(
        "artifact_offline",
        f"{artifact.source}: {artifact.ref} is not in {store.root}, and TIDEGATE_OFFLINE is set",
        cure="run where there is a network: TIDEGATE_OFFLINE=0 tidegate models fetch",
    )
