"""A database with journeys and receipts in it, for the tests that ask."""

from __future__ import annotations

import random
import time
from pathlib import Path

import msgspec

from tests.ledger.samples import make_receipt
from tidegate.base.money import Usage
from tidegate.ledger.partitions import Connection
from tidegate.ledger.receipts import Receipt
from tidegate.ledger.run import Session
from tidegate.ledger.spans import Span, SpanBatch
from tidegate.ledger.spool import SpoolWriter
from tidegate.release.values import LedgerSettings


def journey_spans(number: int, name: str, at: float, call: float) -> list[Span]:
    """A journey of prompt (10 ms), retrieval (20 ms), model (``call`` ms) and 5 ms of other."""
    trace, start = f"{number + 1:032x}", int(at * 1e9)

    def span(n: int, label: str, begin: float, end: float, **more: str) -> Span:
        return Span(
            trace=trace,
            span=f"{number + 1:012x}{n:04x}",
            name=label,
            service="app",
            start_ns=start + int(begin * 1e6),
            end_ns=start + int(end * 1e6),
            **more,
        )

    root = span(0, name, 0, 35 + call, journey=name)
    inside = {"parent": root.span}
    return [
        span(1, "prompt", 0, 10, stage="prompt", **inside),
        span(2, "retrieval", 10, 30, stage="retrieval", **inside),
        span(3, "model", 30, 30 + call, stage="model", **inside),
        root,
    ]


def journey_receipt(spans: list[Span], call: float, **changes: object) -> Receipt:
    """The request that the stage ``model`` of the journey sent."""
    return make_receipt(
        **{
            "at": spans[0].start_ns / 1e9 + 0.03,
            "trace": spans[0].trace,
            "parent": spans[2].span,
            "journey": spans[-1].journey,
            "stages": {"admit": 1.0, "call": call - 2.0},
            "stream": True,
            "first_token": call / 2,
            "total": call - 1.0,
            "usage": Usage(prompt=100, completion=10),
            "cost": 0.01,
            **changes,
        }
    )


def settle(session: Session, connection: Connection) -> None:
    """Load all that is spooled and assemble all journeys, without waiting for the grace time."""
    for _ in range(3):
        session.turn()
        connection.execute("UPDATE pending_journeys SET due = now()")
        session._assembled = float("-inf")


def fill(state: Path, connection: Connection, count: int = 100, seed: int = 1) -> list[float]:
    """``count`` journeys of the last ten minutes; the model times of those named get-plan."""
    rng, now = random.Random(seed), time.time()
    receipts, spans = SpoolWriter(state / "spool"), SpoolWriter(state / "spans")
    calls = []
    for number in range(count):
        call = rng.lognormvariate(6, 0.5)
        name = "ask-coach" if number % 4 == 3 else "get-plan"
        made = journey_spans(number, name, now - rng.uniform(1, 600), call)
        changes = {"route": "coach"} if name == "ask-coach" else {}
        receipt = journey_receipt(made, call, cache="hit" if number % 5 == 0 else "miss", **changes)
        receipts.append(msgspec.json.encode(receipt), b'{"q":1}', b'{"a":"ja"}')
        spans.append(msgspec.json.encode(SpanBatch(seen=now, spans=tuple(made))))
        if name == "get-plan":
            calls.append(call)
    receipts.close()
    spans.close()
    settle(Session(state, connection, LedgerSettings), connection)
    return calls
