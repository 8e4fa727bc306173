"""The profile answers from roll-ups what the receipts and spans say."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from tests.ledger.filled import fill
from tests.ledger.samples import make_receipt, random_receipts
from tidegate.base.errors import RuntimeStateError, TidegateError, UsageError
from tidegate.ledger.partitions import Connection, Partitions
from tidegate.ledger.questions import Picture, profile, require_content
from tidegate.ledger.rollups import RollupKey, receipt_rollups
from tidegate.ledger.store import add_rollups


def picture(pictures: tuple[Picture, ...], name: str) -> Picture:
    return next(p for p in pictures if p.name == name)


def exact(values: list[float], q: float) -> float:
    return sorted(values)[max(math.ceil(q * len(values)), 1) - 1]


def test_a_journey_is_told_with_its_stages_and_the_gateway_inside(
    tmp_path: Path, connection: Connection
) -> None:
    calls = fill(tmp_path, connection)
    found = profile(connection, 900)
    plan = picture(found.journeys, "get-plan")
    assert plan.count == len(calls) == 75
    for q, answer in ((0.5, plan.times.p50), (0.95, plan.times.p95), (0.99, plan.times.p99)):
        assert answer == pytest.approx(exact(calls, q) + 35, rel=0.0101)
    assert plan.first_token.p50 == pytest.approx(exact(calls, 0.5) / 2 + 30, rel=0.02)
    assert (plan.prompt_tokens, plan.completion_tokens) == (7500, 750)
    assert plan.cost == pytest.approx(0.75)
    assert plan.cache_rate == pytest.approx(15 / 75)
    names = [(row.stage, row.within) for row in plan.stages]
    assert names == [
        ("prompt", None),
        ("retrieval", None),
        ("model", None),
        ("admit", "model"),
        ("call", "model"),
        ("other", None),
    ]
    shares = {(row.stage, row.within): row.share or 0.0 for row in plan.stages}
    assert sum(s for (_, within), s in shares.items() if within is None) == pytest.approx(1)
    assert shares["model", None] > 0.9
    assert shares["call", "model"] < shares["model", None]


def test_routes_are_told_likewise_and_a_filter_narrows(
    tmp_path: Path, connection: Connection
) -> None:
    fill(tmp_path, connection)
    found = profile(connection, 900, journey="ask-coach")
    assert [p.name for p in found.journeys] == ["ask-coach"]
    assert [p.name for p in found.routes] == ["coach"]
    assert found.routes[0].count == 25
    only = profile(connection, 900, route="recommend")
    assert ([p.name for p in only.routes], only.journeys) == (["recommend"], ())
    rows = {row.stage: row.share or 0.0 for row in only.routes[0].stages}
    assert set(rows) == {"admit", "call", "other"}
    assert sum(rows.values()) == pytest.approx(1)


def test_unknown_names_tell_the_nearest_and_windows_have_bounds(
    tmp_path: Path, connection: Connection
) -> None:
    fill(tmp_path, connection, count=8)
    with pytest.raises(UsageError, match="did you mean 'get-plan'") as caught:
        profile(connection, 900, journey="get-plam")
    assert caught.value.code == "journey_unknown"
    with pytest.raises(UsageError, match="did you mean 'coach'"):
        profile(connection, 900, route="couch")
    for window in (0.0, -1.0, 1e12):
        with pytest.raises(UsageError, match="window"):
            profile(connection, window)


def test_an_empty_ledger_and_an_empty_window_say_so(connection: Connection) -> None:
    def why() -> TidegateError:
        with pytest.raises(RuntimeStateError) as caught:
            require_content(profile(connection, 60), connection)
        return caught.value

    assert why().code == "ledger_empty"
    load_rollups(connection, {(time.time() - 7000) // 60: 3})
    assert why().code == "window_empty"
    assert "2h" in why().cure


def load_rollups(connection: Connection, counts: dict[float, int]) -> None:
    """Put ``counts`` receipts into the roll-ups of each minute, past the receipts."""
    for minute, count in counts.items():
        day = datetime.fromtimestamp(minute * 60, UTC).date()
        Partitions().ensure(connection, "rollups", [day])
        with connection.transaction():
            made = receipt_rollups(make_receipt(at=minute * 60.0) for _ in range(count))
            add_rollups(connection, made)


def test_a_day_of_a_million_requests_is_answered_at_once(connection: Connection) -> None:
    sample = random_receipts(700, at=time.time())
    minute = int(time.time() // 60)
    base = receipt_rollups(sample)
    (rollup,) = base.values()
    Partitions().ensure(
        connection,
        "rollups",
        [datetime.fromtimestamp((minute - back) * 60, UTC).date() for back in (0, 1439)],
    )
    with connection.transaction():
        add_rollups(
            connection,
            {
                RollupKey(minute - back, "route", "r", "recommend", ""): rollup
                for back in range(1439)
            },
        )
    found = profile(connection, 86400)  # there is no receipt to count: the roll-ups say it all
    (route,) = found.routes
    assert route.count == 700 * 1439 > 1_000_000
    assert route.times.p95 == pytest.approx(
        float(np.quantile([r.total for r in sample], 0.95, method="lower")), rel=0.0101
    )
