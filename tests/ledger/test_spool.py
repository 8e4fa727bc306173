"""No acknowledged receipt is lost: not to a kill, not to a full disk, not to a rotation."""

from __future__ import annotations

import errno
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidegate.ledger import spool
from tidegate.ledger.spool import MAGIC, SpoolWriter
from tidegate.ledger.spool_reader import Record, owned, read_chunk, spool_files


def read_all(folder: Path) -> list[Record]:
    """Every valid record of the folder, in order of writing."""
    return [
        record
        for path in spool_files(folder)
        for record in read_chunk(path, 0, records=1 << 20, size=1 << 30).records
    ]


def receipts(folder: Path) -> list[int]:
    return [int(record.receipt) for record in read_all(folder)]


BODIES = st.tuples(
    st.binary(min_size=1, max_size=40), st.binary(max_size=40), st.binary(max_size=40)
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.lists(BODIES, max_size=12), rotate=st.integers(10, 400))
def test_what_is_appended_is_read(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[bytes, bytes, bytes]], rotate: int
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    writer = SpoolWriter(folder, rotate_bytes=rotate)
    for record in records:
        writer.append(*record)
        found = [tuple(one) for one in read_all(folder)]
        assert record in found, "it is on disk before append returns"
    writer.close()
    # Files of one millisecond have no order among them.
    assert sorted(tuple(record) for record in read_all(folder)) == sorted(records)
    statistics = writer.statistics()
    assert (statistics.records, statistics.waiting, statistics.dropped) == (len(records), 0, 0)


def test_a_file_is_private_locked_while_it_is_written_and_final_after(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path / "spool")
    assert spool_files(tmp_path / "spool") == []
    writer.append(b"1")
    (path,) = spool_files(tmp_path / "spool")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    with owned(path) as free:
        assert not free
    writer.close()
    with owned(path) as free:
        assert free


def test_a_file_is_let_go_when_it_is_large_or_old(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, rotate_bytes=200, rotate_seconds=0.05)
    for n in range(20):
        writer.append(b"%d" % n, b"x" * 50)
    assert len(spool_files(tmp_path)) > 3
    assert all(path.stat().st_size < 300 for path in spool_files(tmp_path))
    count = len(spool_files(tmp_path))
    writer.append(b"20")
    time.sleep(0.1)
    writer.tend()
    with owned(spool_files(tmp_path)[-1]) as free:
        assert free, "what is old enough can be loaded although nothing follows"
    writer.tend()
    assert len(spool_files(tmp_path)) in (count, count + 1), "no empty files"
    writer.close()
    assert sorted(receipts(tmp_path)) == list(range(21))


def test_workers_do_not_share_a_file(tmp_path: Path) -> None:
    writers = [SpoolWriter(tmp_path) for _ in range(3)]
    for n, writer in enumerate(writers):
        writer.append(b"%d" % n)
    assert len(spool_files(tmp_path)) == 3
    for writer in writers:
        writer.close()


# -- a full disk ----------------------------------------------------------------------------------


class Disk:
    """``os.write`` of the spool on a disk with ``room`` bytes left; None: plenty."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room: int | None = None
        self._write = os.write
        monkeypatch.setattr(spool.os, "write", self.write)

    def write(self, handle: int, data: bytes) -> int:
        if self.room is None:
            return self._write(handle, data)
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        part = data[: self.room]
        self.room -= len(part)
        return self._write(handle, part)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.mark.parametrize("room", [0, 1, 7, 8, 9, 24, 25, 30, 60, 61, 500])
@pytest.mark.parametrize("fresh", [True, False])
def test_a_full_disk_loses_nothing_and_keeps_the_order(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture, room: int, fresh: bool
) -> None:
    writer = SpoolWriter(tmp_path)
    if not fresh:
        writer.append(b"0")
    start = 0 if fresh else 1
    disk.room = room
    with caplog.at_level(logging.WARNING):
        for n in range(start, 50):
            writer.append(b"%d" % n, b"y" * 20)
            writer.tend()
        assert writer.statistics().degraded
        assert writer.statistics().waiting > 0
        assert receipts(tmp_path) == list(range(50 - writer.statistics().waiting))
        disk.room = None
        writer.tend()
        writer.append(b"50")
    assert not writer.statistics().degraded
    writer.close()
    assert receipts(tmp_path) == list(range(51))
    levels = [record.levelname for record in caplog.records]
    assert levels == ["ERROR", "WARNING"], "said once when it begins and once when it is over"
    assert not list(tmp_path.glob("*.part"))


def test_a_torn_record_is_cut_off(tmp_path: Path, disk: Disk) -> None:
    writer = SpoolWriter(tmp_path)
    writer.append(b"0")
    (path,) = spool_files(tmp_path)
    size = path.stat().st_size
    disk.room = 5
    writer.append(b"1")
    assert path.stat().st_size == size
    assert read_chunk(path, 0, records=10, size=1000).rest == 0
    disk.room = None
    writer.close()
    assert receipts(tmp_path) == [0, 1]


def test_a_torn_record_that_cannot_be_cut_off_ends_its_file(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int, size: int) -> None:
        raise OSError(errno.EIO, "broken")

    writer = SpoolWriter(tmp_path)
    writer.append(b"0")
    monkeypatch.setattr(spool.os, "ftruncate", refuse)
    disk.room = 5
    writer.append(b"1")
    disk.room = None
    writer.append(b"2")
    writer.close()
    assert sorted(receipts(tmp_path)) == [0, 1, 2]
    assert len(spool_files(tmp_path)) == 2


def test_what_waits_is_bounded_and_what_was_lost_is_counted(tmp_path: Path, disk: Disk) -> None:
    writer = SpoolWriter(tmp_path, waiting_bytes=1000)
    disk.room = 0
    for n in range(100):
        writer.append(b"%03d" % n, b"x" * 81)  # a hundred bytes each
    statistics = writer.statistics()
    assert (statistics.waiting, statistics.dropped) == (10, 90)
    assert statistics.waiting_bytes == 1000
    disk.room = None
    writer.close()
    assert receipts(tmp_path) == list(range(90, 100)), "the newest are kept"


def test_a_folder_that_is_away_is_no_end(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    writer = SpoolWriter(folder)
    folder.rmdir()
    writer.append(b"0")
    assert writer.statistics().degraded
    folder.mkdir()
    writer.append(b"1")
    writer.close()
    assert receipts(folder) == [0, 1]


LIMITED = """
import pathlib, resource, sys
from tidegate.ledger.spool import SpoolWriter
writer = SpoolWriter(pathlib.Path(sys.argv[1]))
writer.append(b"0")
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
for n in range(1, 100):
    writer.append(b"%d" % n, b"x" * 30)
assert writer.statistics().waiting > 50, writer.statistics()
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
writer.tend()
assert writer.statistics().waiting == 0
writer.close()
"""


def test_a_real_limit_of_the_kernel_loses_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
    assert receipts(tmp_path) == list(range(100))


# -- kill -9 --------------------------------------------------------------------------------------

ENDLESS = """
import os, pathlib, sys
from tidegate.ledger.spool import SpoolWriter
writer = SpoolWriter(pathlib.Path(sys.argv[1]), rotate_bytes=20_000)
n = 0
while True:
    writer.append(b"%d" % n, b"q" * (n % 700), b"a" * (n % 300))
    os.write(1, b"%d\\n" % n)
    n += 1
"""


def test_a_killed_writer_leaves_every_acknowledged_record(tmp_path: Path) -> None:
    chance = random.Random(7)
    for turn in range(6):
        folder = tmp_path / str(turn)
        folder.mkdir()
        writer = subprocess.Popen(
            [sys.executable, "-c", ENDLESS, str(folder)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.08))
        writer.send_signal(signal.SIGKILL)
        acknowledged = 1 + writer.stdout.read().count(b"\n")
        writer.wait()
        writer.stdout.close()
        found = sorted(receipts(folder))
        assert found == list(range(len(found))), "each once, without a gap"
        assert len(found) - acknowledged in (0, 1)
        for path in spool_files(folder):
            assert path.read_bytes().startswith(MAGIC)
            with owned(path) as free:
                assert free
