"""Move spooled receipts and spans into PostgreSQL, batch by batch."""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import psycopg

from tidegate.ledger.receipts import Receipt
from tidegate.ledger.span_store import SpanStore
from tidegate.ledger.spans import SpanBatch
from tidegate.ledger.spool_cursor import SpoolCursor
from tidegate.ledger.spool_reader import Record
from tidegate.ledger.store import Batch, Entry, ReceiptStore, make_entry

log = logging.getLogger("tidegate.ledger")

BATCH_RECORDS = 5000
BATCH_BYTES = 8 << 20

SPAN_BATCHES = 1000

_decode = msgspec.json.Decoder(Receipt).decode
_decode_spans = msgspec.json.Decoder(SpanBatch).decode


class LoadedBatch(NamedTuple):
    """The result of loading one batch; ``more``: further records are ready."""

    loaded: int
    new: int
    rejected: int
    more: bool


class Rejected(NamedTuple):
    """A record that can never be a row, and why."""

    receipt: bytes
    reason: str


class ReceiptLoader:
    """Loads the spool in ``folder`` through ``store``; a new one is made for each connection."""

    def __init__(self, folder: Path, store: ReceiptStore, positions: Mapping[str, int]) -> None:
        self._folder = folder
        self._store = store
        self.cursor = SpoolCursor(folder, positions)

    def step(self) -> LoadedBatch:
        """Load one batch. Raises psycopg.Error; the next step then begins at the same place."""
        records, positions, more = self.cursor.gather(records=BATCH_RECORDS, size=BATCH_BYTES)
        if not records:
            return LoadedBatch(0, 0, 0, False)
        entries, rejected = make_entries(records)
        keep_rejected(self._folder, rejected)
        new, refused = self._store_what_fits(entries, positions)
        self.cursor.advance(positions)
        return LoadedBatch(len(records), new, len(rejected) + refused, more)

    def _store_what_fits(
        self, entries: Sequence[Entry], positions: Mapping[str, int]
    ) -> tuple[int, int]:
        """Store; when PostgreSQL refuses a value, set its receipt aside and store the others."""
        try:
            return self._store.store(Batch(entries, positions)), 0
        except psycopg.DataError as error:
            refused = {id(entry): entry for entry in self._store.refuses(entries)}
            if not refused:
                raise
            reason = str(error).splitlines()[0]
            keep_rejected(
                self._folder,
                [Rejected(msgspec.json.encode(e.receipt), reason) for e in refused.values()],
            )
        rest = [entry for entry in entries if id(entry) not in refused]
        return self._store.store(Batch(rest, positions)), len(refused)


def make_entries(records: Iterable[Record]) -> tuple[list[Entry], list[Rejected]]:
    """Records as rows, and those that cannot be rows."""
    entries: list[Entry] = []
    rejected: list[Rejected] = []
    for record in records:
        try:
            entries.append(make_entry(_decode(record.receipt), record.request, record.response))
        except (msgspec.DecodeError, ValueError, OverflowError, OSError) as error:
            rejected.append(Rejected(record.receipt, str(error)))
    return entries, rejected


def keep_rejected(folder: Path, rejected: Sequence[Rejected]) -> None:
    """Append to ``rejected.jsonl``: a receipt is never thrown away because it is not understood."""
    if not rejected:
        return
    log.error(
        "%d receipts cannot be stored (%s): kept in %s",
        len(rejected),
        rejected[0].reason,
        folder / "rejected.jsonl",
    )
    lines = b"".join(
        msgspec.json.encode({"reason": r.reason, "receipt": base64.b64encode(r.receipt).decode()})
        + b"\n"
        for r in rejected
    )
    handle = os.open(folder / "rejected.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(lines)


class SpanLoader:
    """Loads the spans that the operator's door spooled in ``folder``."""

    def __init__(self, folder: Path, store: SpanStore, positions: Mapping[str, int]) -> None:
        self._store = store
        self.cursor = SpoolCursor(folder, positions)

    def step(self) -> LoadedBatch:
        """Load one batch. Raises psycopg.Error; the next step then begins at the same place."""
        records, positions, more = self.cursor.gather(records=SPAN_BATCHES, size=BATCH_BYTES)
        if not records:
            return LoadedBatch(0, 0, 0, False)
        batches, rejected = [], 0
        for record in records:
            try:
                batches.append(_decode_spans(record.receipt))
            except msgspec.DecodeError as error:
                rejected += 1
                log.error("spooled spans cannot be read, and are left out: %s", error)
        new = self._store.store(batches, positions)
        self.cursor.advance(positions)
        return LoadedBatch(sum(len(b.spans) for b in batches), new, rejected, more)
