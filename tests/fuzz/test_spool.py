"""Spool files: whatever a crash, a full disk or a hand made of them, no receipt is made up."""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.budget import fuzz
from tests.fuzz.inputs import broken_bytes
from tests.ledger.samples import make_receipt
from tidegate.ledger.loader import make_entries
from tidegate.ledger.spool import FRAME, MAGIC
from tidegate.ledger.spool_reader import Record, read_chunk


def framed(receipt: bytes, request: bytes = b"", response: bytes = b"") -> bytes:
    body = receipt + request + response
    return FRAME.pack(zlib.crc32(body), len(receipt), len(request), len(response)) + body


SOUND = [b'{"id":"1"}', b"x" * 40, b'{"id":"2"}']
SEEDS = [
    MAGIC + framed(SOUND[0], b"question", b"answer") + framed(SOUND[1]) + framed(SOUND[2]),
    MAGIC,
    framed(SOUND[0]),
]
TOKENS = [b"\x00" * FRAME.size, b"\xff" * 4, MAGIC, framed(b"made up")[:-1], b"\x00\x00\x00\x80"]


@fuzz(400)
@given(
    data=st.one_of(broken_bytes(SEEDS, TOKENS), st.binary(max_size=60)),
    position=st.integers(0, 80),
    records=st.integers(1, 3),
    size=st.integers(1, 200),
)
def test_only_whole_records_are_read(data: bytes, position: int, records: int, size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.spool"
        path.write_bytes(data)
        chunk = read_chunk(path, position, records=records, size=size)
    assert len(chunk.records) <= records
    assert chunk.rest >= 0 or position > len(data)
    if chunk.records:
        assert max(position, len(MAGIC)) < chunk.position <= len(data)
    for record in chunk.records:
        assert framed(*record) in data, "its checksum holds"


SOUND_RECEIPT = msgspec.json.encode(make_receipt(id="0" * 32, at=1e9))


@fuzz(300)
@given(
    broken_bytes(
        [SOUND_RECEIPT],
        [b'"', b"{", b"}", b"\xff", b"\\u0000", b"1e999", b"-1", b"null", b"[" * 3000, b"9" * 400],
    )
)
def test_any_record_becomes_a_row_or_is_kept_aside(receipt: bytes) -> None:
    entries, rejected = make_entries([Record(receipt, b"", b"")])
    assert len(entries) + len(rejected) == 1
