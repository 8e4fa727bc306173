"""What the ledger is asked: the profile of a window, receipts by filter, one receipt whole."""

from __future__ import annotations

import difflib
import math
import time
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from tidegate.base import RuntimeStateError, UsageError, format_duration
from tidegate.ledger.find import digest_prefix
from tidegate.ledger.journeys import PIECE
from tidegate.ledger.partitions import Connection
from tidegate.ledger.receipts import Purpose
from tidegate.ledger.rollups import FIRST_TOKEN, STAGE, TOTAL, Rollup
from tidegate.ledger.stages import STAGES
from tidegate.stats import OTHER, Sketch, shares

LONGEST_WINDOW = 400 * 86400.0
USUAL_ORDER = ("prompt", "retrieval", "model", "tools", "database", "rendering")
"""App stages are listed in this order, then the others by their share."""


class Quantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds, each within 1% of the true value; None when nothing was counted."""

    p50: float | None
    p95: float | None
    p99: float | None


class StageRow(msgspec.Struct, frozen=True, kw_only=True):
    """One stage. ``within`` names the app stage that a gateway stage lies in; its share is part of
    that one's. ``share`` is of the P95 of the whole (see ``stats.share``)."""

    stage: str
    within: str | None
    count: int
    times: Quantiles
    share: float | None


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """One journey, or one route of the gateway. Cost is US dollars and leaves the unknown out."""

    name: str
    count: int
    errors: int
    """Journeys whose span has status ERROR; requests that were not served."""
    times: Quantiles
    first_token: Quantiles
    prompt_tokens: int
    completion_tokens: int
    cost: float
    cost_unknown: int
    """Requests whose cost is not known."""
    cache_rate: float | None
    """Share of hits among requests for which the cache was asked; None when it never was."""
    stages: tuple[StageRow, ...]


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Whole minutes from ``begin`` to ``end``, in seconds since the epoch."""

    begin: float
    end: float
    journeys: tuple[Picture, ...]
    routes: tuple[Picture, ...]


def profile(
    connection: Connection,
    window: float,
    *,
    journey: str | None = None,
    route: str | None = None,
    release: str | None = None,
    variant: str | None = None,
    purpose: Purpose = "user",
    now: float | None = None,
) -> Profile:
    """Where time and money went in the last ``window`` seconds.

    With ``journey`` that journey and the requests made for it; with ``route`` that route only; with
    ``release`` (a digest, or how one begins), ``variant`` or a ``purpose`` other than users the
    gateway's routes only, as an app's journeys know none of them.
    UsageError: window_invalid, journey_unknown, route_unknown (with the nearest name).
    """
    if not 0 < window <= LONGEST_WINDOW:
        raise UsageError(
            "window_invalid",
            f"a window of {window:g} s is not between 0 and {LONGEST_WINDOW / 86400:.0f} days",
            cure="write for example --window 15m or --window 7d",
        )
    end = time.time() if now is None else now
    begin = math.floor((end - window) / 60) * 60
    _require_known(connection, "journey", journey)
    _require_known(connection, "route", route)
    rows = connection.execute(
        # Rows of scope ``route`` that are older than ``journey_route`` have a journey as well.
        "SELECT CASE scope WHEN 'journey' THEN scope ELSE 'route' END, "
        "CASE scope WHEN 'journey' THEN journey ELSE route END, body FROM rollups "
        "WHERE minute >= to_timestamp(%(begin)s) AND minute <= to_timestamp(%(end)s) "
        "AND scope = ANY(%(scopes)s) AND purpose = %(purpose)s "
        "AND (%(journey)s::text IS NULL OR journey = %(journey)s) "
        "AND (%(route)s::text IS NULL OR route = %(route)s) "
        "AND (%(release)s::text IS NULL OR starts_with(release, %(release)s)) "
        "AND (%(variant)s::text IS NULL OR variant = %(variant)s)",
        {
            "begin": begin,
            "end": end,
            "scopes": _scopes(journey, release, variant),
            "journey": journey,
            "route": route,
            "release": None if release is None else digest_prefix(release),
            "variant": variant,
            "purpose": purpose,
        },
    ).fetchall()
    bodies: dict[tuple[str, str], list[bytes]] = {}
    for scope, name, body in rows:
        bodies.setdefault((scope, name), []).append(body)
    pictures = {key: Rollup.merged_from(found) for key, found in bodies.items()}
    return Profile(
        begin=begin,
        end=end,
        journeys=_ordered(
            journey_picture(name, r) for (scope, name), r in pictures.items() if scope == "journey"
        ),
        routes=_ordered(
            route_picture(name, r) for (scope, name), r in pictures.items() if scope == "route"
        ),
    )


def _scopes(journey: str | None, release: str | None, variant: str | None) -> list[str]:
    if release is not None or variant is not None:
        return ["route"] if journey is None else ["route", "journey_route"]
    return ["journey", "route"] if journey is None else ["journey", "route", "journey_route"]


def require_content(found: Profile, connection: Connection) -> None:
    """RuntimeStateError ``ledger_empty`` or ``window_empty`` when there is nothing to show."""
    if found.journeys or found.routes:
        return
    row = connection.execute("SELECT max(minute) FROM rollups").fetchone()
    if row is None or row[0] is None:
        raise RuntimeStateError(
            "ledger_empty",
            "the ledger holds no requests yet",
            cure="send one through the gateway: tidegate up prints how",
        )
    past = time.time() - row[0].timestamp()
    raise RuntimeStateError(
        "window_empty",
        f"nothing happened in this window; the last requests were {format_duration(past)} ago",
        cure=f"look further back: --window {math.ceil((past + 60) / 3600)}h",
    )


def known_names(connection: Connection, scope: str) -> list[str]:
    """Names of journeys or routes that the ledger ever saw."""
    rows = connection.execute(
        "SELECT DISTINCT name FROM ledger_totals WHERE scope = %s AND name <> '' ORDER BY name",
        (scope,),
    ).fetchall()
    return [name for (name,) in rows]


def _require_known(connection: Connection, scope: str, name: str | None) -> None:
    if name is None:
        return
    known = known_names(connection, scope)
    if name in known:
        return
    if scope == "journey":
        known = sorted({*known, *_journeys_of_requests(connection)})
        if name in known:
            return
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4) or known[:1]
    raise UsageError(
        f"{scope}_unknown",
        f"no {scope} {name!r} in the ledger"
        + (f"; did you mean {near[0]!r}?" if near else ", which holds none yet"),
        cure=f"use one of: {', '.join(known[:10])}"
        if known
        else f"send requests that name the {scope}",
    )


def _journeys_of_requests(connection: Connection) -> list[str]:
    """Journeys that requests named in the last week, whether their spans arrived or not."""
    rows = connection.execute(
        "SELECT DISTINCT journey FROM rollups WHERE scope <> 'journey' AND journey <> '' "
        "AND minute > now() - interval '7 days'"
    ).fetchall()
    return [name for (name,) in rows]


def journey_picture(name: str, rollup: Rollup) -> Picture:
    """The picture of one journey out of its merged roll-up."""
    tallies = rollup.tallies
    share = _shares(rollup)
    return Picture(
        name=name,
        count=rollup.count,
        errors=int(tallies.get("errors", 0)),
        times=quantiles(rollup.sketches.get(TOTAL)),
        first_token=quantiles(rollup.sketches.get(FIRST_TOKEN)),
        prompt_tokens=int(tallies.get("tokens.prompt", 0)),
        completion_tokens=int(tallies.get("tokens.completion", 0)),
        cost=tallies.get("cost", 0.0),
        cost_unknown=int(tallies.get("cost.unknown", 0)),
        cache_rate=_rate(tallies.get("cache.hits", 0), tallies.get("cache.asked", 0)),
        stages=tuple(_journey_rows(rollup, share)),
    )


def route_picture(name: str, rollup: Rollup) -> Picture:
    """The picture of one route out of its merged roll-up."""
    tallies = rollup.tallies
    hits = tallies.get("cache.hit", 0) + tallies.get("cache.shared", 0)
    share = _shares(rollup)
    rows = [
        _row(rollup, stage, None, stage, share)
        for stage in STAGES
        if STAGE + stage in rollup.sketches
    ]
    rows.append(_row(rollup, OTHER, None, OTHER, share))
    return Picture(
        name=name or "(no route)",
        count=rollup.count,
        errors=rollup.count - int(tallies.get("outcome.served", 0)),
        times=quantiles(rollup.sketches.get(TOTAL)),
        first_token=quantiles(rollup.sketches.get(FIRST_TOKEN)),
        prompt_tokens=int(tallies.get("tokens.prompt", 0)),
        completion_tokens=int(tallies.get("tokens.completion", 0)),
        cost=tallies.get("cost", 0.0),
        cost_unknown=int(tallies.get("cost.unknown", 0)),
        cache_rate=_rate(hits, hits + tallies.get("cache.miss", 0)),
        stages=tuple(rows),
    )


def quantiles(sketch: Sketch | None) -> Quantiles:
    """P50, P95 and P99 of ``sketch``."""
    if sketch is None:
        return Quantiles(p50=None, p95=None, p99=None)
    return Quantiles(p50=sketch.quantile(0.5), p95=sketch.quantile(0.95), p99=sketch.quantile(0.99))


def _ordered(pictures: Iterable[Picture]) -> tuple[Picture, ...]:
    return tuple(sorted(pictures, key=lambda p: (-p.count, p.name)))


def _rate(hits: float, asked: float) -> float | None:
    return hits / asked if asked else None


def _shares(rollup: Rollup) -> dict[str, float]:
    within = {name: name.split(PIECE)[0] for name in rollup.shelves.parts if PIECE in name}
    return shares(rollup.shelves, within)


def _journey_rows(rollup: Rollup, share: Mapping[str, float]) -> Iterable[StageRow]:
    names = [name.removeprefix(STAGE) for name in rollup.sketches if name.startswith(STAGE)]
    stages = _stage_order([n for n in names if PIECE not in n and n != OTHER], share)
    for stage in [*stages, OTHER]:
        yield _row(rollup, stage, None, stage, share)
        for piece in STAGES:
            if STAGE + (name := f"{stage}{PIECE}{piece}") in rollup.sketches:
                yield _row(rollup, piece, stage, name, share)


def _stage_order(names: Sequence[str], share: Mapping[str, float]) -> list[str]:
    def place(name: str) -> tuple[int, float, str]:
        usual = USUAL_ORDER.index(name) if name in USUAL_ORDER else len(USUAL_ORDER)
        return usual, -share.get(name, 0.0), name

    return sorted(names, key=place)


def _row(
    rollup: Rollup, stage: str, within: str | None, name: str, share: Mapping[str, float]
) -> StageRow:
    sketch = rollup.sketches.get(STAGE + name)
    return StageRow(
        stage=stage,
        within=within,
        count=sketch.count if sketch else 0,
        times=quantiles(sketch),
        share=share.get(name),
    )
