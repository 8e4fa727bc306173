"""Verdicts and decisions are written once, each about a release, and stay."""

from __future__ import annotations

import psycopg
import pytest

from tidegate.base import UsageError
from tidegate.ledger import (
    Decision,
    LedgerActor,
    Verdict,
    decisions_of,
    verdicts_of,
    write_decision,
    write_verdict,
)
from tidegate.ledger.partitions import Connection

ANNA = LedgerActor("person", "anna")
CANARY = LedgerActor("controller", "canary")
RELEASE, OTHER = "sha256:one", "sha256:two"


def verdict(**changes: object) -> Verdict:
    fields = {
        "release": RELEASE, "gate": "accuracy", "value": "PASS", "reason": "0.91 of 0.90",
        "actor": CANARY, "evidence": {"n": 200, "interval": [0.87, 0.94]}, **changes,
    }  # fmt: skip
    return Verdict(**fields)  # type: ignore[arg-type]


def test_a_verdict_comes_back_as_it_was_written(connection: Connection) -> None:
    written = write_verdict(connection, verdict(), now=1000.5)
    write_verdict(connection, verdict(release=OTHER, value="FAIL"), now=1001.0)
    assert verdicts_of(connection, release=RELEASE) == [written]
    assert (written.at, len(written.id)) == (1000.5, 32)
    assert [one.release for one in verdicts_of(connection)] == [OTHER, RELEASE], "newest first"
    assert verdicts_of(connection, gate="safety") == []
    assert [one.release for one in verdicts_of(connection, since=1000.8)] == [OTHER]
    assert len(verdicts_of(connection, limit=1)) == 1


def test_a_decision_comes_back_as_it_was_written(connection: Connection) -> None:
    made = Decision(
        release=RELEASE, kind="rollback", subject="recommend", actor=ANNA,
        sentence="errors rose from 0.1% to 4%", evidence={"verdict": "x"},
    )  # fmt: skip
    written = write_decision(connection, made, now=5.0)
    assert decisions_of(connection, release=RELEASE, kind="rollback") == [written]
    assert decisions_of(connection, kind="step") == []


@pytest.mark.parametrize("table", ["verdicts", "decisions"])
@pytest.mark.parametrize(
    "statement", ["UPDATE {} SET release = 'x'", "DELETE FROM {}", "TRUNCATE {}"]
)
def test_nothing_is_changed_or_taken_away(
    connection: Connection, table: str, statement: str
) -> None:
    write_verdict(connection, verdict())
    write_decision(
        connection,
        Decision(release=RELEASE, kind="step", subject="r", sentence="s", actor=ANNA),
    )
    with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        connection.execute(statement.format(table).encode())


def test_each_names_its_release(connection: Connection) -> None:
    with pytest.raises(UsageError) as raised:
        write_verdict(connection, verdict(release=""))
    assert raised.value.code == "release_missing"
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(
            "INSERT INTO verdicts VALUES (gen_random_uuid(), now(), '', 'g', 'PASS', 'r', '{}', "
            "'{}')"
        )


def test_a_value_that_is_none_is_refused(connection: Connection) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        write_verdict(connection, verdict(value="MAYBE"))
