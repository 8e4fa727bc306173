"""The reader takes whole records only, and knows a final file from one that is still written."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tidegate.ledger.spool import FRAME, MAGIC, SpoolWriter
from tidegate.ledger.spool_reader import Record, backlog, owned, read_chunk, spool_files

RECORDS = [Record(b'{"n":%d}' % n, b"q" * (n % 7), b"a" * (n % 5 * 100)) for n in range(50)]


def write(folder: Path, records: list[Record] = RECORDS) -> Path:
    writer = SpoolWriter(folder)
    for record in records:
        writer.append(*record)
    writer.close()
    return spool_files(folder)[0]


def read_all(path: Path, *, records: int = 1000, size: int = 1 << 20) -> tuple[list[Record], int]:
    found: list[Record] = []
    position, more, rest = 0, True, 0
    while more:
        chunk = read_chunk(path, position, records=records, size=size)
        found += chunk.records
        position, more, rest = chunk.position, chunk.more, chunk.rest
    return found, rest


@pytest.mark.parametrize("records", [1, 7, 1000])
@pytest.mark.parametrize("size", [16, 300, 1 << 20])
def test_all_records_come_back_whatever_the_portion(
    tmp_path: Path, records: int, size: int
) -> None:
    assert read_all(write(tmp_path), records=records, size=size) == (RECORDS, 0)


def test_a_torn_end_at_every_byte_leaves_the_whole_records_before_it(tmp_path: Path) -> None:
    path = write(tmp_path, RECORDS[:3])
    whole = path.read_bytes()
    ends = [len(MAGIC)]
    for record in RECORDS[:3]:
        ends.append(ends[-1] + FRAME.size + sum(map(len, record)))
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        found, rest = read_all(path)
        expected = sum(end <= cut for end in ends[1:])
        assert found == RECORDS[:expected]
        assert rest == (cut - ends[expected] if cut >= len(MAGIC) else cut)


def test_a_flipped_byte_ends_the_file_there_and_never_yields_a_wrong_record(tmp_path: Path) -> None:
    path = write(tmp_path)
    whole = path.read_bytes()
    rng = random.Random(3)
    for _ in range(200):
        broken = bytearray(whole)
        broken[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        found, rest = read_all(path)
        assert found == RECORDS[: len(found)]
        assert rest > 0


def test_a_file_that_is_being_written_has_an_owner_until_it_is_closed(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path)
    writer.append(b"{}")
    (path,) = spool_files(tmp_path)
    with owned(path) as free:
        assert not free
    assert read_all(path) == ([Record(b"{}", b"", b"")], 0)
    writer.close()
    with owned(path) as free:
        assert free


def test_a_missing_folder_and_a_missing_file_are_nothing_to_read(tmp_path: Path) -> None:
    assert spool_files(tmp_path / "none") == []
    assert backlog(tmp_path / "none") == 0
    with owned(tmp_path / "none.spool") as free:
        assert not free
