"""Receipts are found by filter, and one is shown whole by the beginning of its id."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.samples import make_receipt, random_receipts, spool
from tests.ledger.test_loader import load_all
from tidegate.base.errors import UsageError
from tidegate.base.money import Usage
from tidegate.ledger.find import ReceiptFilter, find_receipts, one_receipt
from tidegate.ledger.partitions import Connection
from tidegate.ledger.receipts import Attempt


def test_every_field_comes_back(tmp_path: Path, connection: Connection) -> None:
    receipt = make_receipt(
        at=1_795_000_000.25,
        usage=Usage(prompt=3, completion=2, cached=1, reasoning=1, estimated=True),
        replayed=Usage(prompt=9, completion=1),
        cost=None,
        code="x",
        stream=True,
        journey="get-plan",
        first_token=12.5,
        queued=3.25,
        capped="surge",
        trace="4b" * 16,
        parent="00f067aa0ba902b7",
        attempts=(Attempt(model="a", ms=1.5, code="refused"), Attempt(model="b", ms=2, status=200)),
    )
    spool(tmp_path, [receipt], '{"q":"é"}'.encode(), b"\xff").close()
    load_all(tmp_path, connection)
    kept = one_receipt(connection, receipt.id)
    assert kept.receipt == receipt
    assert kept.request == '{"q":"é"}'
    assert kept.response == "\ufffd"
    assert find_receipts(connection, ReceiptFilter()) == [receipt]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"route": "coach"}, 1),
        ({"journey": "get-plan"}, 1),
        ({"tenant": "globex"}, 1),
        ({"provider_key": "1a2b3c4d"}, 1),
        ({"provider_key": "1a2b"}, 0),
        ({"model": "large"}, 1),
        ({"outcome": "failed"}, 1),
        ({"code": "upstream_refused"}, 1),
        ({"status": "502"}, 1),
        ({"status": "5XX"}, 1),
        ({"status": "2xx"}, 8),
        ({"trace": "4b" * 16}, 1),
        ({"since": 60.0}, 9),
        ({"since": 7200.0}, 10),
        ({"limit": 3}, 3),
        ({"route": "coach", "tenant": "globex"}, 0),
        ({"route": "'; DROP TABLE receipts; --"}, 0),
    ],
)
def test_filters(
    tmp_path: Path, connection: Connection, fields: dict[str, Any], expected: int
) -> None:
    receipts = [
        make_receipt(route="coach"),
        make_receipt(journey="get-plan"),
        make_receipt(tenant="globex", attempts=(Attempt(model="small", ms=1, key="1a2b3c4d"),)),
        make_receipt(model="large"),
        make_receipt(outcome="failed", status=502, code="upstream_refused"),
        make_receipt(trace="4b" * 16, status=404),
        make_receipt(at=time.time() - 3600),
        *random_receipts(3),
    ]
    spool(tmp_path, receipts).close()
    load_all(tmp_path, connection)
    found = find_receipts(connection, ReceiptFilter(**fields))
    assert len(found) == expected
    assert [r.id for r in found] == sorted((r.id for r in found), reverse=True)


def test_references_that_name_none_or_many_say_so(tmp_path: Path, connection: Connection) -> None:
    first = "0123456789abcdef" * 2
    second = "0123456789abcde0" * 2
    spool(tmp_path, [make_receipt(id=first), make_receipt(id=second)]).close()
    load_all(tmp_path, connection)
    assert one_receipt(connection, "0123456789ABCDEF").receipt.id == first
    assert one_receipt(connection, "01234567-89ab-cde0").receipt.id == second
    for reference, code in (
        ("01234567", "receipt_ambiguous"),
        ("ffffffff", "receipt_unknown"),
        ("0123", "receipt_id_invalid"),
        ("nonsense", "receipt_id_invalid"),
    ):
        with pytest.raises(UsageError) as caught:
            one_receipt(connection, reference)
        assert caught.value.code == code


def test_content_past_its_retention_is_gone_but_its_hash_stays(
    tmp_path: Path, connection: Connection
) -> None:
    receipt = make_receipt()
    spool(tmp_path, [receipt], b"{}").close()
    load_all(tmp_path, connection)
    connection.execute("TRUNCATE content")
    kept = one_receipt(connection, receipt.id)
    assert kept.request is None
    assert kept.request_sha
    assert kept.response_sha is None


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"limit": 0}, "limit_invalid"),
        ({"limit": 1001}, "limit_invalid"),
        ({"status": "9"}, "status_invalid"),
        ({"status": "xx4"}, "status_invalid"),
    ],
)
def test_bad_filters_are_refused(connection: Connection, fields: dict[str, Any], code: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_receipts(connection, ReceiptFilter(**fields))
    assert caught.value.code == code
