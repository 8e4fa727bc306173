"""Metrics in the Prometheus text format; the number of series is bounded."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tidegate.ledger import Connection, LedgerStatus, WorkerGauges, backlog, is_fresh

MOST_NAMES = 100
"""Routes, and journeys, with series of their own; the others are summed up as ``(other)``."""
_OTHER = "(other)"


class Family(NamedTuple):
    """Tallies of one scope that become one metric. A tally that ends in a dot is a prefix: what
    follows it is the value of ``label``."""

    metric: str
    help: str
    scope: str
    tally: str
    label: str = ""


FAMILIES = (
    Family("requests_total", "Requests by outcome.", "route", "outcome.", "outcome"),
    Family("responses_total", "Requests by class of HTTP status.", "route", "status.", "status"),
    Family("cache_total", "Requests by what the cache said.", "route", "cache.", "result"),
    Family("served_total", "Answered requests by what answered.", "route", "served.", "by"),
    Family(
        "failed_attempts_total",
        "Tries at models that gave no answer, by code.",
        "route",
        "failed_attempt.",
        "code",
    ),
    Family(
        "errors_total",
        "Requests that were not served, by whose failure it was.",
        "route",
        "class.",
        "class",
    ),
    Family("tokens_total", "Tokens; replayed ones were not billed.", "route", "tokens.", "kind"),
    Family("cost_dollars_total", "Cost that is known, in US dollars.", "route", "cost"),
    Family("cost_unknown_total", "Requests whose cost is not known.", "route", "cost.unknown"),
    Family("purpose_requests_total", "Requests by purpose.", "purpose", "count"),
    Family("purpose_cost_dollars_total", "Known cost by purpose.", "purpose", "cost"),
    Family("journeys_total", "Journeys.", "journey", "count"),
    Family("journey_errors_total", "Journeys that ended in an error.", "journey", "errors"),
    Family("late_spans_total", "Spans after their journey was told.", "journey", "late_spans"),
)

Totals = Sequence[tuple[str, str, str, float]]
"""(scope, name, tally, value)."""


def read_totals(connection: Connection) -> Totals:
    """The sums since the ledger began, of users' requests. What other purposes cost stands in the
    scope ``purpose``."""
    return connection.execute(
        "SELECT scope, name, tally, value FROM ledger_totals WHERE purpose = 'user' UNION ALL "
        "SELECT 'purpose', purpose, tally, sum(value) FROM ledger_totals WHERE scope = 'route' "
        "GROUP BY purpose, tally"
    ).fetchall()


def render_totals(totals: Totals) -> Iterator[str]:
    """Lines of all FAMILIES."""
    kept = {scope: _largest(totals, scope) for scope in ("route", "journey", "purpose")}
    for family in FAMILIES:
        series: dict[tuple[str, str], float] = {}
        for scope, name, tally, value in totals:
            if scope == family.scope and (label := _label(family, tally)) is not None:
                key = (name if name in kept[scope] else _OTHER, label)
                series[key] = series.get(key, 0.0) + value
        yield from _lines(family, series)


def _largest(totals: Totals, scope: str) -> set[str]:
    counts = {n: value for s, n, tally, value in totals if s == scope and tally == "count"}
    return set(sorted(counts, key=lambda name: (-counts[name], name))[:MOST_NAMES])


def _label(family: Family, tally: str) -> str | None:
    if family.tally.endswith("."):
        return tally.removeprefix(family.tally) if tally.startswith(family.tally) else None
    return "" if tally == family.tally else None


def _lines(family: Family, series: Mapping[tuple[str, str], float]) -> Iterator[str]:
    yield from _head(family.metric, "counter", family.help)
    for (name, label), value in sorted(series.items()):
        labels = {family.scope: name}
        if family.label:
            labels[family.label] = label
        yield _sample(family.metric, value, labels)


def render_ledger(state: Path, status: LedgerStatus | None, answers: bool) -> Iterator[str]:
    """Lines about the way from the spool to PostgreSQL; they need no database."""
    now = time.time()
    fresh = status is not None and is_fresh(status)
    waiting = status.behind_bytes if fresh and status and status.behind_bytes >= 0 else None
    if waiting is None:
        waiting = backlog(state / "spool") + backlog(state / "spans")
    lag = now - status.level_at if status else 0.0
    gauges = (
        ("ledger_up", "1 when PostgreSQL answered this scrape.", float(answers)),
        ("loader_up", "1 when the loader reported in the last 10 s.", float(fresh)),
        (
            "ledger_degraded",
            "1 while PostgreSQL takes no receipts.",
            float(bool(status and status.degraded)),
        ),
        ("spool_backlog_bytes", "Spooled and not yet in PostgreSQL.", float(waiting)),
        ("ledger_lag_seconds", "Since all that was spooled was in PostgreSQL.", max(0.0, lag)),
        (
            "ledger_rejected",
            "Receipts set aside by the running loader.",
            float(status.rejected if status else 0),
        ),
    )
    for name, text, value in gauges:
        yield from _head(name, "gauge", text)
        yield _sample(name, value, {})


def render_workers(workers: Mapping[int, WorkerGauges]) -> Iterator[str]:
    """Lines of what each gateway worker has under way."""
    yield from _head("worker", "gauge", "What a gateway worker has under way or holds, by kind.")
    for number, one in workers.items():
        for kind, value in sorted(one.gauges.items()):
            yield _sample("worker", float(value), {"worker": str(number), "kind": kind})


def text_of(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP tidegate_{name} {text}"
    yield f"# TYPE tidegate_{name} {kind}"


def _sample(name: str, value: float, labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
    shown = str(int(value)) if value.is_integer() else repr(value)
    return f"tidegate_{name}{{{inside}}} {shown}" if inside else f"tidegate_{name} {shown}"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
