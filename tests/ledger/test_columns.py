"""A receipt comes back from its row as it was, whatever its fields hold."""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.ledger.samples import make_receipt
from tidegate.base import Usage, new_id
from tidegate.ledger import Attempt, Receipt, one_receipt
from tidegate.ledger import columns as module
from tidegate.ledger.columns import COLUMNS, NAMES, decode_row, receipt_line
from tidegate.ledger.partitions import Connection, Partitions
from tidegate.ledger.store import Batch, ReceiptStore, make_entry

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
USAGES = st.builds(
    Usage,
    prompt=st.integers(0, 1 << 40),
    completion=st.integers(0, 1 << 40),
    cached=st.integers(0, 9),
    reasoning=st.integers(0, 9),
    estimated=st.booleans(),
)
TIMES = st.floats(0, 1e7, allow_nan=False)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "release": TEXT,
        "route": st.none() | TEXT,
        "journey": TEXT,
        "tenant": st.none() | TEXT,
        "code": TEXT,
        "finish": TEXT,
        "usage": st.none() | USAGES,
        "replayed": USAGES,
        "cost": st.none() | TIMES,
        "stages": st.dictionaries(TEXT, TIMES, max_size=3),
        "reasons": st.dictionaries(TEXT, TEXT, max_size=3),
        "purpose": st.sampled_from(["user", "eval", "preview", "shadow", "load", "chaos"]),
        "queued": TIMES,
        "capped": TEXT,
        "variant": TEXT,
        "first_token": TIMES,
        "attempts": st.tuples(st.builds(Attempt, model=TEXT, ms=TIMES, code=TEXT, usage=USAGES)),
    },
)


def without_nul(value: Any) -> Any:
    """What PostgreSQL can hold of ``value``."""
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd")
    if isinstance(value, dict):
        return {without_nul(key): without_nul(one) for key, one in value.items()}
    return [without_nul(one) for one in value] if isinstance(value, (list, tuple)) else value


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=CHANGES)
def test_every_field_comes_back(connection: Connection, changes: dict[str, Any]) -> None:
    receipt = make_receipt(id=new_id(), at=1_795_000_000.25, **changes)
    ReceiptStore(connection, Partitions()).store(Batch([make_entry(receipt, b"", b"")], {}))
    found = one_receipt(connection, receipt.id).receipt
    expected = msgspec.convert(without_nul(msgspec.to_builtins(receipt)), Receipt)
    assert found == expected


def test_each_field_of_a_receipt_has_one_place() -> None:
    names = [column.name for column in COLUMNS]
    assert len(set(names)) == len(names)
    assert len(receipt_line(make_receipt(), None, None).split("\t")) == len(NAMES.split(", ")) - 1


def test_a_field_without_a_column_lives_in_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adding an optional field needs neither a line of the table nor a migration."""
    monkeypatch.setattr(module, "_REST", (("capped", None),))
    line = receipt_line(make_receipt(capped="surge"), None, None).split("\t")
    more = line[NAMES.split(", ").index("more")]
    assert msgspec.json.decode(more) == {"capped": "surge"}


def test_a_row_of_before_these_columns_reads(connection: Connection) -> None:
    with connection.transaction():
        Partitions().ensure(connection, "receipts", [module.day_time(1_795_000_000).date()])
    connection.execute(
        "INSERT INTO receipts (id, at, kind, status, outcome, stream, cache, stages, total, worker)"
        " VALUES (%s, to_timestamp(1795000000), 'chat', 200, 'served', false, 'off', '{}', 1, 1)",
        ("0" * 31 + "1",),
    )
    row = connection.execute(f"SELECT {module.SELECTED} FROM receipts".encode()).fetchone()
    assert row is not None
    found = decode_row(row)
    assert (found.purpose, found.reasons, found.usage) == ("user", {}, None)


def test_a_value_that_no_row_can_hold_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ValueError, match="32 hex digits"):
        receipt_line(make_receipt(id="x"), None, None)
    assert issubclass(psycopg.DataError, psycopg.Error)
