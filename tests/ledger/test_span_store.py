"""Journeys are told once each, after their stragglers had a chance; who comes later is counted."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.ledger.filled import journey_receipt, journey_spans, settle
from tests.ledger.samples import spool
from tidegate.ledger.partitions import Connection
from tidegate.ledger.rollups import Rollup
from tidegate.ledger.run import Session
from tidegate.ledger.span_store import GRACE
from tidegate.ledger.spans import Span, SpanBatch
from tidegate.ledger.spool import SpoolWriter
from tidegate.release.values import LedgerSettings


@pytest.fixture
def session(tmp_path: Path, connection: Connection) -> Session:
    return Session(tmp_path, connection, LedgerSettings)


def send(state: Path, *spans: Span) -> None:
    writer = SpoolWriter(state / "spans")
    writer.append(msgspec.json.encode(SpanBatch(seen=time.time(), spans=spans)))
    writer.close()


def rows(connection: Connection, query: str) -> list[Any]:
    return connection.execute(query).fetchall()


def test_spans_and_receipts_meet_in_one_row(
    tmp_path: Path, connection: Connection, session: Session
) -> None:
    spans = journey_spans(0, "план ☂", time.time(), 200.0)
    send(tmp_path, *spans)
    spool(
        tmp_path / "spool", [journey_receipt(spans, 200.0, cost=None), journey_receipt(spans, 50.0)]
    ).close()
    settle(session, connection)
    ((name, total, stages, first, prompt, cost, unknown, requests),) = rows(
        connection,
        "SELECT journey, total, stages, first_token, prompt_tokens, cost, cost_unknown, requests "
        "FROM journeys",
    )
    assert (name, total) == ("план ☂", 235.0)
    assert stages["self"] == {"prompt": 10.0, "retrieval": 20.0, "model": 200.0, "other": 5.0}
    assert set(stages["in"]) == {"model"}
    assert sum(stages["in"]["model"].values()) == pytest.approx(200.0)
    assert first == pytest.approx(30 + 25, abs=1)
    assert (prompt, cost, unknown, requests) == (200, 0.01, 1, 2)


def test_a_journey_waits_its_grace_time_and_takes_in_who_comes_within(
    tmp_path: Path, connection: Connection, session: Session
) -> None:
    prompt, retrieval, model, root = journey_spans(0, "get-plan", time.time(), 200.0)
    send(tmp_path, root)
    session.turn()
    assert rows(connection, "SELECT * FROM journeys") == []
    ((due,),) = rows(
        connection, "SELECT extract(epoch FROM due - now())::float8 FROM pending_journeys"
    )
    assert 0 < due <= GRACE
    send(tmp_path, prompt, retrieval, model)
    settle(session, connection)
    assert rows(connection, "SELECT spans, late_spans FROM journeys") == [(4, 0)]


def test_late_spans_are_counted_and_kept(
    tmp_path: Path, connection: Connection, session: Session
) -> None:
    prompt, retrieval, model, root = journey_spans(0, "get-plan", time.time(), 200.0)
    send(tmp_path, prompt, root)
    settle(session, connection)
    send(tmp_path, retrieval, model)
    settle(session, connection)
    assert rows(connection, "SELECT spans, late_spans FROM journeys") == [(2, 2)]
    assert rows(connection, "SELECT count(*) FROM spans") == [(4,)]
    assert rows(connection, "SELECT name, value FROM ledger_totals WHERE tally = 'late_spans'") == [
        ("get-plan", 2)
    ]


def test_the_same_spans_sent_again_change_nothing(
    tmp_path: Path, connection: Connection, session: Session
) -> None:
    spans = journey_spans(0, "get-plan", time.time(), 200.0)
    writer = SpoolWriter(tmp_path / "spans")
    now = time.time()
    for seen in (now - 86400, now - 86400, now, now + 1):
        writer.append(msgspec.json.encode(SpanBatch(seen=seen, spans=tuple(spans))))
        settle(session, connection)
    settle(session, connection)
    writer.close()
    assert rows(connection, "SELECT count(*) FROM journeys") == [(1,)]
    ((body,),) = rows(connection, "SELECT body FROM rollups WHERE scope = 'journey'")
    assert Rollup.merged_from([body]).count == 1


def test_a_journey_with_an_absurd_clock_is_filed_under_its_arrival(
    tmp_path: Path, connection: Connection, session: Session
) -> None:
    now = time.time()
    send(tmp_path, *journey_spans(0, "get-plan", 1.0, 200.0))
    send(tmp_path, *journey_spans(1, "get-plan", now + 1e8, 200.0))
    settle(session, connection)
    ages = rows(connection, "SELECT extract(epoch FROM now() - at)::float8, total FROM journeys")
    assert [total for _, total in ages] == [235.0, 235.0]
    assert all(-5 < age < 60 for age, _ in ages)


def test_thousands_of_spans_at_once_are_taken(
    tmp_path: Path, connection: Connection, session: Session
) -> None:
    now = time.time()
    spans = [span for n in range(1200) for span in journey_spans(n, "get-plan", now, 200.0)]
    send(tmp_path, *spans)
    settle(session, connection)
    settle(session, connection)
    assert rows(connection, "SELECT count(*) FROM journeys") == [(1200,)]


def test_a_spooled_batch_that_cannot_be_read_does_not_stop_the_others(
    tmp_path: Path, connection: Connection, session: Session
) -> None:
    writer = SpoolWriter(tmp_path / "spans")
    writer.append(b'{"of":"another version"}')
    writer.close()
    send(tmp_path, *journey_spans(0, "get-plan", time.time(), 200.0))
    settle(session, connection)
    assert rows(connection, "SELECT count(*) FROM journeys") == [(1,)]
