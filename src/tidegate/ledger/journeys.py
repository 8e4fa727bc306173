"""Journeys as roll-ups and rows: what is kept of an assembled journey."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tidegate.ledger.assemble import Journey
from tidegate.ledger.rollups import Rollup, RollupKey, bounded, build_rollup, clean
from tidegate.stats import OTHER

PIECE = "\t"
"""Between an app stage and a gateway stage inside it, in the names of a journey's roll-up."""

_DAY, _AHEAD = 86400.0, 300.0


def at_of(journey: Journey, seen: float) -> float:
    """When it began, in seconds since the epoch; when it arrived, if the app's clock is absurd."""
    at = journey.start_ns / 1e9
    return at if seen - _DAY <= at <= seen + _AHEAD else seen


def journey_rollups(journeys: Iterable[tuple[Journey, float]]) -> dict[RollupKey, Rollup]:
    """Roll-ups of new journeys, each with its ``at``."""
    groups: dict[RollupKey, list[Journey]] = {}
    for journey, at in journeys:
        key = RollupKey(int(at // 60), "journey", journey=clean(journey.journey))
        groups.setdefault(key, []).append(journey)
    return {key: _of_journeys(group) for key, group in bounded(groups).items()}


def _of_journeys(group: Sequence[Journey]) -> Rollup:
    parts: dict[str, list[float]] = {}
    for n, journey in enumerate(group):
        for name, ms in named_times(journey).items():
            parts.setdefault(name, [np.nan] * len(group))[n] = ms
    totals = np.array([journey.total for journey in group], dtype=np.float64)
    first = [j.first_token for j in group if j.first_token is not None]
    times = {name: np.array(values, dtype=np.float64) for name, values in parts.items()}
    return build_rollup(_tally(group), totals, first, times)


def named_times(journey: Journey) -> dict[str, float]:
    """Self times by stage with ``other``, and the gateway's by ``stage<tab>gateway stage``."""
    pieces = {
        f"{within}{PIECE}{stage}": ms
        for within, mine in journey.pieces.items()
        for stage, ms in mine.items()
    }
    return {**journey.stages, OTHER: journey.other, **pieces}


def _tally(group: Sequence[Journey]) -> Mapping[str, float]:
    return {
        "count": len(group),
        "errors": sum(j.error for j in group),
        "requests": sum(j.requests for j in group),
        "tokens.prompt": sum(j.prompt_tokens for j in group),
        "tokens.completion": sum(j.completion_tokens for j in group),
        "cost": sum(j.cost for j in group),
        "cost.unknown": sum(j.cost_unknown for j in group),
        "cache.hits": sum(j.cache_hits for j in group),
        "cache.asked": sum(j.cache_asked for j in group),
    }
