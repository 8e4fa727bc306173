"""Spans into PostgreSQL, and out of them journeys, each once, after a grace time."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from tidegate.base import Usage
from tidegate.ledger.assemble import Journey, assemble
from tidegate.ledger.columns import escape, json_field
from tidegate.ledger.journeys import at_of, journey_rollups
from tidegate.ledger.partitions import Connection, Partitions
from tidegate.ledger.receipts import Attempt, Receipt
from tidegate.ledger.spans import Span, SpanBatch
from tidegate.ledger.store import add_rollups, add_totals, move_positions

log = logging.getLogger("tidegate.ledger")

GRACE = 2.0
"""Seconds between the arrival of a journey's span and its assembly; what comes later is late."""
AT_ONCE = 500
"""Traces assembled in one transaction."""

_COLUMNS = (
    "trace, span, day, seen, parent, name, service, start_ns, end_ns, error, journey, stage, "
    "attributes"
)
_SPANS_IN = "CREATE TEMPORARY TABLE IF NOT EXISTS spans_in (LIKE spans) ON COMMIT DELETE ROWS"


class SpanStore:
    """Stores spans and assembles journeys over a connection of its own."""

    def __init__(self, connection: Connection, partitions: Partitions) -> None:
        self._connection = connection
        self._partitions = partitions

    def store(self, batches: Sequence[SpanBatch], positions: Mapping[str, int]) -> int:
        """Store the spans and move the positions; how many were new. Raises psycopg.Error."""
        connection = self._connection
        days = {datetime.fromtimestamp(batch.seen, UTC).date() for batch in batches}
        self._partitions.ensure(connection, "spans", days)
        connection.execute(_SPANS_IN)
        with connection.transaction():
            with (
                connection.cursor() as cursor,
                cursor.copy(f"COPY spans_in ({_COLUMNS}) FROM STDIN") as copy,
            ):
                for batch in batches:
                    copy.write("".join(_line(span, batch.seen) for span in batch.spans))
            new = connection.execute(
                f"INSERT INTO spans ({_COLUMNS}) SELECT {_COLUMNS} FROM spans_in "
                "ON CONFLICT DO NOTHING RETURNING trace, journey IS NOT NULL"
            ).fetchall()
            self._count_late([trace for trace, is_root in new if not is_root])
            self._expect({trace for trace, is_root in new if is_root})
            move_positions(connection, positions)
        return len(new)

    def assemble_due(self) -> int:
        """Assemble journeys whose grace time is over; how many became new rows."""
        connection = self._connection
        with connection.transaction():
            due = connection.execute(
                "SELECT trace FROM pending_journeys WHERE due <= now() ORDER BY due "
                "LIMIT %s FOR UPDATE SKIP LOCKED",
                (AT_ONCE,),
            ).fetchall()
            if not due:
                return 0
            traces = [trace for (trace,) in due]
            made = self._assembled(traces)
            new = self._insert(made)
            if new:
                add_rollups(connection, journey_rollups(new))
            connection.execute("DELETE FROM pending_journeys WHERE trace = ANY(%s)", (traces,))
        return len(new)

    def _count_late(self, traces: Sequence[str]) -> None:
        if not traces:
            return
        counts: dict[str, int] = {}
        for trace in traces:
            counts[trace] = counts.get(trace, 0) + 1
        late = self._connection.execute(
            "UPDATE journeys j SET late_spans = late_spans + k.n FROM (SELECT DISTINCT ON (trace) "
            "trace, span, at, n FROM journeys JOIN unnest(%s::text[], %s::int[]) AS u(trace, n) "
            "USING (trace) ORDER BY trace, at) k WHERE j.trace = k.trace AND j.span = k.span AND "
            "j.at = k.at RETURNING j.journey, k.n",
            (list(counts), list(counts.values())),
        ).fetchall()
        add_totals(
            self._connection,
            [("journey", name, "user", {"late_spans": float(n)}) for name, n in late],
        )

    def _expect(self, traces: Iterable[str]) -> None:
        self._connection.execute(
            "INSERT INTO pending_journeys (trace, due) SELECT t, now() + make_interval(secs => %s) "
            "FROM unnest(%s::text[]) t ON CONFLICT (trace) DO UPDATE SET due = excluded.due",
            (GRACE, sorted(traces)),
        )

    def _assembled(self, traces: Sequence[str]) -> list[tuple[Journey, float]]:
        rows = self._connection.execute(
            "SELECT trace, span, parent, name, service, start_ns, end_ns, error, journey, stage, "
            "extract(epoch FROM seen)::float8 FROM spans "
            "WHERE trace = ANY(%s) AND day > current_date - 3",
            (list(traces),),
        ).fetchall()
        spans: dict[str, list[Span]] = {}
        seen: dict[str, float] = {}
        for row in rows:
            spans.setdefault(row[0], []).append(
                Span(
                    trace=row[0],
                    span=row[1],
                    parent=row[2],
                    name=row[3],
                    service=row[4],
                    start_ns=row[5],
                    end_ns=row[6],
                    error=row[7],
                    journey=row[8],
                    stage=row[9],
                )
            )
            seen[row[0]] = min(row[10], seen.get(row[0], row[10]))
        receipts = self._receipts(traces)
        return [
            (journey, at_of(journey, seen[trace]))
            for trace, found in spans.items()
            for journey in assemble(found, receipts.get(trace, ()))
        ]

    def _receipts(self, traces: Sequence[str]) -> dict[str, list[Receipt]]:
        rows = self._connection.execute(
            "SELECT trace, id::text, extract(epoch FROM at)::float8, status, outcome, parent, "
            "prompt_tokens, completion_tokens, cost, cache, stages, first_token, total, "
            "attempts IS NOT NULL FROM receipts "
            "WHERE trace = ANY(%s) AND at > now() - interval '2 days'",
            (list(traces),),
        ).fetchall()
        found: dict[str, list[Receipt]] = {}
        for row in rows:
            usage = None if row[6] is None else Usage(prompt=row[6], completion=row[7])
            receipt = Receipt(
                id=row[1],
                at=row[2],
                kind="",
                status=row[3],
                outcome=row[4],
                parent=row[5],
                usage=usage,
                cost=row[8],
                cache=row[9],
                stages=row[10],
                first_token=row[11],
                total=row[12],
                attempts=(Attempt(model="", ms=0.0),) if row[13] else (),
            )
            found.setdefault(row[0], []).append(receipt)
        return found

    def _insert(self, made: Sequence[tuple[Journey, float]]) -> list[tuple[Journey, float]]:
        """The journeys that were not there yet."""
        days = {datetime.fromtimestamp(at, UTC).date() for _, at in made}
        for table in ("journeys", "rollups"):
            self._partitions.ensure(self._connection, table, days)
        new = []
        for journey, at in made:
            inserted = self._connection.execute(
                "INSERT INTO journeys (trace, span, at, journey, total, stages, first_token, "
                "prompt_tokens, completion_tokens, cost, cost_unknown, requests, cache_hits, "
                "cache_asked, error, spans) VALUES (%s, %s, to_timestamp(%s), %s, %s, %s, %s, %s, "
                "%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (
                    journey.trace,
                    journey.span,
                    at,
                    journey.journey,
                    journey.total,
                    msgspec.json.encode(
                        {"self": {**journey.stages, "other": journey.other}, "in": journey.pieces}
                    ).decode(),
                    journey.first_token,
                    journey.prompt_tokens,
                    journey.completion_tokens,
                    journey.cost,
                    journey.cost_unknown,
                    journey.requests,
                    journey.cache_hits,
                    journey.cache_asked,
                    journey.error,
                    journey.spans,
                ),
            )
            if inserted.rowcount:
                new.append((journey, at))
        return new


def _line(span: Span, seen: float) -> str:
    def text(value: str | None) -> str:
        return "\\N" if value is None else escape(value)

    at = datetime.fromtimestamp(seen, UTC)
    return (
        f"{text(span.trace)}\t{text(span.span)}\t{at.date()}\t{at.isoformat()}\t"
        f"{text(span.parent)}\t"
        f"{text(span.name)}\t{text(span.service)}\t{span.start_ns}\t{span.end_ns}\t"
        f"{'t' if span.error else 'f'}\t{text(span.journey)}\t{text(span.stage)}\t"
        f"{json_field(span.attributes)}\n"
    )
