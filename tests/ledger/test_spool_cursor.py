"""The cursor moves only when told, and sees a torn end that was replaced by a record as long."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.ledger.samples import make_receipt, spool
from tidegate.ledger.spool_cursor import SpoolCursor
from tidegate.ledger.spool_reader import spool_files


def names(cursor: SpoolCursor) -> int:
    return len(cursor.gather(records=100, size=1 << 20).records)


def test_records_come_again_until_the_cursor_is_moved(tmp_path: Path) -> None:
    spool(tmp_path, [make_receipt() for _ in range(3)]).close()
    cursor = SpoolCursor(tmp_path, {})
    gathered = cursor.gather(records=2, size=1 << 20)
    assert (len(gathered.records), gathered.more) == (2, True)
    assert names(cursor) == 3
    cursor.advance(gathered.positions)
    assert names(cursor) == 1
    assert cursor.behind() > 0


def test_a_torn_record_that_is_written_again_is_seen(tmp_path: Path) -> None:
    spool(tmp_path, [make_receipt()]).close()
    (path,) = spool_files(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"\x00")
    cursor = SpoolCursor(tmp_path, {})
    assert names(cursor) == 0
    assert names(cursor) == 0
    path.write_bytes(whole)
    os.utime(path, ns=(time.time_ns(), time.time_ns() + 1_000_000))
    assert names(cursor) == 1


def test_a_foreign_file_is_kept_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "x.spool"
    path.write_bytes(b"this is no spool file")
    os.utime(path, (0, 0))
    cursor = SpoolCursor(tmp_path, {})
    (done,) = cursor.finished()
    cursor.remove(done)
    assert (tmp_path / "x.spool.damaged").exists()
    assert not path.exists()


def test_a_file_whose_only_record_is_torn_goes(tmp_path: Path) -> None:
    spool(tmp_path, [make_receipt()]).close()
    (path,) = spool_files(tmp_path)
    for cut in (0, 3, 8, 20, 100):
        path.write_bytes((path.read_bytes() or b"")[:cut] if cut else b"")
        os.utime(path, (0, 0))
        cursor = SpoolCursor(tmp_path, {})
        assert cursor.finished() == [path]
        cursor.remove(path)
        assert list(tmp_path.iterdir()) == []
        spool(tmp_path, [make_receipt()]).close()
        (path,) = spool_files(tmp_path)


def test_what_a_killed_worker_left_half_made_is_swept_when_it_is_old(tmp_path: Path) -> None:
    old, young = tmp_path / "a.part", tmp_path / "b.part"
    old.touch()
    young.touch()
    os.utime(old, (0, 0))
    SpoolCursor(tmp_path, {}).sweep_parts()
    assert [p.name for p in tmp_path.iterdir()] == ["b.part"]
