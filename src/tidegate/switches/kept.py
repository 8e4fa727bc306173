"""Files that hold the last switches, for a start without PostgreSQL.

``switches.json`` holds every switch, the name of a file of keys, and the keys that changed since
that file was written; the file of keys is written anew only when those are many. A reader sees the
old state or the new one, never half of either: a file of keys is whole before ``switches.json``
names it, which is replaced atomically. The workers of one gateway share the files, under a lock.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tidegate.base import write_private
from tidegate.switches.rules import KeyRecord, KeyTable
from tidegate.switches.snapshot import PAGE, SwitchTables
from tidegate.switches.values import SwitchSnapshot

log = logging.getLogger("tidegate.switches")

_SLICE = 200
"""Keys that are encoded or decoded at once. The interpreter is let go after each: what runs beside
the loop would otherwise hold the loop up."""
_READS = 5


class _KeyFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file with every key at one version."""

    name: str
    count: int


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of ``switches.json``."""

    snapshot: SwitchSnapshot
    key_file: _KeyFile
    keys_version: int
    """The newest version of a key."""
    changed: Sequence[KeyRecord]
    """Keys that changed after ``key_file``."""


class SwitchKeeper:
    """Writer of the kept files, in a thread: one write at a time, always of the newest state."""

    def __init__(self, path: Path, tables: SwitchTables) -> None:
        self._path = path
        self._tables = tables
        self._due = self._whole = False
        self._all = True
        """Whether ``_recent`` does not do: every key must be written."""
        self._recent: dict[str, KeyRecord] = {}
        self._since = 0
        """Every key that changed after this version is in ``_recent``."""
        self._task: asyncio.Task[None] | None = None

    def keep(self, changed: Sequence[KeyRecord], *, whole: bool) -> None:
        """Write the present state soon; ``changed``: its keys that changed. ``whole``: it was not
        built upon the one before, so nothing that lies there is good for it."""
        self._due, self._whole = True, self._whole or whole
        self._recent |= {record.id: record for record in changed}
        if len(self._recent) > PAGE or whole:
            self._recent, self._all = {}, True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write())

    async def close(self) -> None:
        """Wait until the newest state is written."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def _write(self) -> None:
        while self._due:
            self._due = False
            try:
                written = None if self._all else await self._add()
                if written is None:
                    written = await self._write_all()
            except (OSError, ValueError) as error:  # a full disk costs the files, nothing more
                log.warning("degraded: the switches cannot be kept in %s: %s", self._path, error)
                self._all = True
                continue
            if not self._all:  # else keys came meanwhile that _recent does not have
                self._since = written
                later = (one for one in self._recent.values() if one.version > written)
                self._recent = {record.id: record for record in later}

    async def _add(self) -> int | None:
        """Write what changed; the newest version of a key on the disk then, or None."""
        snapshot, newest = self._present()
        recent = list(self._recent.values())
        done = await asyncio.to_thread(add_kept, self._path, snapshot, newest, self._since, recent)
        return newest if done else None

    async def _write_all(self) -> int:
        """Write everything; the newest version of a key on the disk then."""
        whole, self._whole, self._all = self._whole, False, False
        snapshot, newest = self._present()
        # Copied, as those in force change in place; 100,000 take a millisecond or two.
        records = self._tables.keys.records()
        try:
            await asyncio.to_thread(write_kept, self._path, snapshot, newest, records, whole)
        except (OSError, ValueError):
            self._whole = self._whole or whole  # what lies there is of another history still
            raise
        return newest

    def _present(self) -> tuple[SwitchSnapshot, int]:
        """Snapshot and newest version of a key; as nothing here waits, they belong together."""
        assert self._tables.snapshot is not None
        return self._tables.snapshot, self._tables.keys.version


def add_kept(
    path: Path, snapshot: SwitchSnapshot, newest: int, since: int, recent: Sequence[KeyRecord]
) -> bool:
    """Keep ``snapshot`` with the keys that lie there and ``recent``: all that changed after the
    version ``since``. ``newest``: of any key. False where those do not add up."""
    with _locked(path):
        old = _manifest(path)
        if old is None:
            return False
        if _is_kept(old.snapshot, snapshot):
            return True  # another worker was faster
        if not since <= old.keys_version <= newest:
            return False
        changed = {record.id: record for record in (*old.changed, *recent)}
        if len(changed) > PAGE:
            return False
        _replace(path, snapshot, old.key_file, newest, list(changed.values()))
    return True


def write_kept(
    path: Path, snapshot: SwitchSnapshot, newest: int, records: Sequence[KeyRecord], whole: bool
) -> None:
    """Keep ``snapshot`` and all its keys in a new file; ``whole``: also where what lies there seems
    newer, as its version is of another history."""
    with _locked(path):
        old = _manifest(path)
        if old is not None and _is_kept(old.snapshot, snapshot, equal=whole):
            return
        key_file = _write_keys(path, snapshot, records)
        _replace(path, snapshot, key_file, newest, ())
        for other in _key_files(path):
            if other.name != key_file.name:
                other.unlink(missing_ok=True)


def _is_kept(old: SwitchSnapshot, new: SwitchSnapshot, equal: bool = False) -> bool:
    """Whether what lies there is as new; ``equal``: is the same."""
    same = (old.version, old.mark) == (new.version, new.mark)
    return same or (not equal and old.version > new.version)


def _replace(
    path: Path,
    snapshot: SwitchSnapshot,
    key_file: _KeyFile,
    newest: int,
    changed: Sequence[KeyRecord],
) -> None:
    snapshot = msgspec.structs.replace(snapshot, history=0)  # each worker counts from its start
    kept = _Kept(snapshot=snapshot, key_file=key_file, keys_version=newest, changed=changed)
    write_private(path, msgspec.json.encode(kept))


def read_kept(path: Path) -> SwitchTables | None:
    """The state that was kept last; None without one, or when it cannot be read."""
    try:
        for _ in range(_READS):
            if (kept := _read(path)) is None:
                return None
            try:
                return SwitchTables(kept.snapshot, _read_keys(path, kept))
            except FileNotFoundError:  # another worker has just replaced it
                continue
        raise FileNotFoundError("the file of keys is missing")
    except (OSError, ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        log.warning("the kept switches in %s cannot be read: %s", path, error)
        return None


def _write_keys(path: Path, snapshot: SwitchSnapshot, records: Sequence[KeyRecord]) -> _KeyFile:
    name = f"{path.stem}-keys-{snapshot.version}-{time.time_ns()}.jsonl"
    part = path.with_name(f"{name}.part")
    encoder = msgspec.json.Encoder()
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for start in range(0, len(records), _SLICE):
            line = memoryview(encoder.encode(records[start : start + _SLICE]) + b"\n")
            while line:
                line = line[os.write(handle, line) :]
    finally:
        os.close(handle)
    os.replace(part, path.with_name(name))
    return _KeyFile(name=name, count=len(records))


def _read_keys(path: Path, kept: _Kept) -> KeyTable:
    decoder = msgspec.json.Decoder(list[KeyRecord])
    table = KeyTable()
    with path.with_name(Path(kept.key_file.name).name).open("rb") as file:
        for line in file:
            table.put(decoder.decode(line))
            time.sleep(0)  # lets the interpreter go
    if len(table) != kept.key_file.count:
        raise ValueError(f"{kept.key_file.name} has not all {kept.key_file.count} keys")
    table.put(kept.changed)
    return table


def _read(path: Path) -> _Kept | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Kept)
    except FileNotFoundError:
        return None


def _manifest(path: Path) -> _Kept | None:
    """What is kept now, when it is whole; what cannot be read is written anew."""
    try:
        old = _read(path)
    except (ValueError, RecursionError):
        return None
    return old if old is not None and path.with_name(old.key_file.name).exists() else None


def _key_files(path: Path) -> list[Path]:
    """Files of keys beside ``path``, also those that a killed worker left half written."""
    return list(path.parent.glob(f"{path.stem}-keys-*"))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time; the system takes the lock from a worker that is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path.with_suffix(".lock"), os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
