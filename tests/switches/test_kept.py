"""The kept files hold one state whole, whoever writes them and whenever a writer is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
import uvloop

from tests.switches.readers import PLACE, until, watched
from tidegate.switches import (
    Author,
    KeyRecord,
    KeyTable,
    Kill,
    Place,
    SwitchSnapshot,
    create_key,
    key_records,
    kill,
    revoke_key,
    snapshot,
)
from tidegate.switches.kept import SwitchKeeper, add_kept, read_kept, write_kept
from tidegate.switches.snapshot import PAGE, SwitchTables

ROOT = Path(__file__).resolve().parents[2]
KEYS = 3000


def key(number: int, version: int) -> KeyRecord:
    return KeyRecord(id=f"{number:012x}", name=str(version), hash=b"h" * 32, version=version)


def state(version: int) -> SwitchSnapshot:
    kills = (Kill(kind="route", name=str(version)),)
    return SwitchSnapshot(version=version, mark=version, kills=kills)


def write_state(path: Path, version: int) -> None:
    """Every fifth version changes all keys, those in between one each: key 1, 2, 3, 4."""
    if version % 5 == 0:
        keys = [key(number, version) for number in range(KEYS)]
        write_kept(path, state(version), version, keys, whole=False)
    else:
        one = [key(version % 5, version)]
        assert add_kept(path, state(version), version, version - 1, one)


def keys_of(version: int) -> KeyTable:
    base = version - version % 5
    changed = [key(number, base + number) for number in range(1, version % 5 + 1)]
    return KeyTable([*(key(number, base) for number in range(KEYS)), *changed])


def test_a_writer_killed_at_any_moment_leaves_a_whole_state(tmp_path: Path) -> None:
    path = tmp_path / "switches.json"
    write_state(path, 0)
    code = (
        "import sys, pathlib; from tests.switches.test_kept import write_state\n"
        "version = int(sys.argv[2])\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    version += 1\n"
        "    write_state(pathlib.Path(sys.argv[1]), version)\n"
    )
    seen = 0
    for number in range(12):
        command = [sys.executable, "-c", code, str(path), str(seen)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(0.01 + number * 0.0037)
            os.kill(writer.pid, signal.SIGKILL)
        found = read_kept(path)
        assert found is not None
        assert found.snapshot is not None
        version = found.snapshot.version
        assert found.snapshot == state(version)
        assert found.keys == keys_of(version)
        seen = version
    assert seen > 12
    write_state(path, seen - seen % 5 + 5)  # what the killed ones left is swept
    assert len(list(tmp_path.glob("switches-keys-*"))) == 1
    assert all(one.stat().st_mode & 0o077 == 0 for one in tmp_path.iterdir())


def test_a_change_does_not_write_all_keys(tmp_path: Path) -> None:
    path = tmp_path / "switches.json"
    write_state(path, 0)
    (keys,) = tmp_path.glob("switches-keys-*")
    before = keys.stat()
    for version in range(1, 5):
        write_state(path, version)
    assert list(tmp_path.glob("switches-keys-*")) == [keys]
    assert keys.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_size < before.st_size / 100


@pytest.mark.parametrize(("count", "added"), [(PAGE, True), (PAGE + 1, False)])
def test_many_changed_keys_are_a_new_file(tmp_path: Path, count: int, added: bool) -> None:
    path = tmp_path / "switches.json"
    write_state(path, 0)
    changed = [key(number, 1) for number in range(count)]
    assert add_kept(path, state(1), 1, 0, changed) is added


def test_changes_that_do_not_reach_back_to_the_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "switches.json"
    write_state(path, 0)
    write_state(path, 1)
    assert not add_kept(path, state(9), 9, 5, [key(1, 9)])
    found = read_kept(path)
    assert found is not None
    assert found.snapshot == state(1)


def test_older_states_do_not_replace_newer_ones_but_a_restored_one_does(tmp_path: Path) -> None:
    path = tmp_path / "switches.json"
    write_state(path, 5)
    write_kept(path, state(3), 3, [], whole=False)
    assert (found := read_kept(path)) is not None
    assert found.snapshot == state(5)
    write_kept(path, state(3), 3, [], whole=True)
    assert (found := read_kept(path)) is not None
    assert (found.snapshot, len(found.keys)) == (state(3), 0)


def test_files_that_are_not_whole_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "switches.json"
    write_state(path, 0)
    (keys,) = tmp_path.glob("switches-keys-*")
    lines = keys.read_bytes().splitlines(keepends=True)
    keys.write_bytes(b"".join(lines[:-1]))
    assert read_kept(path) is None
    keys.unlink()
    assert read_kept(path) is None


def test_a_write_that_failed_is_made_good_by_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """given files of a higher version of another history; when the first write that is to replace
    them fails; then the next one replaces them, though its version is lower."""
    path = tmp_path / "switches.json"
    write_state(path, 5)
    tables = SwitchTables(state(3), KeyTable([key(1, 3)]))

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    async def scenario() -> None:
        keeper = SwitchKeeper(path, tables)
        with monkeypatch.context() as patched:
            patched.setattr("tidegate.switches.kept._write_keys", fail)
            keeper.keep([], whole=True)
            await keeper.close()
        tables.snapshot = state(4)
        keeper.keep([], whole=False)
        await keeper.close()

    asyncio.run(scenario())
    found = read_kept(path)
    assert found is not None
    assert (found.snapshot, found.keys) == (state(4), tables.keys)


def test_workers_share_the_files(database_url: str, tmp_path: Path) -> None:
    """given three workers of one gateway; when changes come fast; then the files have the last."""
    path = tmp_path / "switches.json"
    me = Author(by="test")

    def kept_version() -> int:
        found = read_kept(path)
        return -1 if found is None or found.snapshot is None else found.snapshot.version

    async def scenario() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            async with (
                watched(database_url, path) as one,
                watched(database_url, path, Place(gateway="g", name="2", host="h")),
                watched(database_url, path, Place(gateway="g", name="3", host="h")),
            ):
                await until(lambda: one.last is not None)
                for number in range(10):
                    made = create_key(connection, name=str(number))
                    kill(connection, Kill(kind="route", name=str(number)), me)
                    revoke_key(connection, made.key.id)
                    await asyncio.sleep(0.01)
                await until(lambda: kept_version() == 30)
            found = read_kept(path)
            assert found is not None
            assert found.snapshot == snapshot(connection)
            assert found.keys == KeyTable(key_records(connection))

    assert PLACE.name not in ("2", "3")
    uvloop.run(scenario())
