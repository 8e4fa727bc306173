"""The limits of a route, compiled: which counters a request reserves on, and in what unit. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import msgspec

from tidegate.release import Limit, Model, Route
from tidegate.stores import KEEP, NANO, Calendar, ReservationTerms, Unit, grain_of, limit_stem

LEASE_BEYOND = 10.0
"""Seconds that a lease outlives the deadline of its request."""


class CountedLimit(msgspec.Struct, frozen=True, kw_only=True):
    """One limit as it counts the requests of one route. Dollars are whole billionths."""

    name: str
    stem: str
    """The prefix of the names of its counters in Valkey."""
    unit: Unit
    calendar: Calendar | None
    """None: a bucket that drains at ``rate``."""
    per: str
    scope: str | None
    """The route, model or app that the counter is for; None: the key or tenant of the request."""
    covers: int
    """Bits of the models whose use counts, of those that may be asked."""
    models: frozenset[str]
    """Their names."""
    charge: bool
    """Counted as used on admission and never settled; otherwise reserved, then settled."""
    capacity: int
    rate: float
    """Units that drain in a millisecond; 0: a budget."""
    ttl: int
    """Milliseconds that a counter is kept, beyond its window."""
    closed: bool
    """Whether requests are refused while the counters cannot be reached."""
    prompt_nano: float
    output_nano: float
    """Billionths of a dollar a token, of the dearest model that is covered."""
    most: tuple[str, str]
    """The header that says how much it allows."""
    remaining: str
    reset: str
    """Names of the headers that say how much is left, and when all of it is."""


class RouteLimits(msgspec.Struct, frozen=True):
    """The limits of one route. Bits stand for the models that may be asked, the first is 1."""

    lines: tuple[CountedLimit, ...]
    models: tuple[str, ...]
    terms: ReservationTerms
    """With the bits of all models, none of them barred."""
    unpriced: int
    """The bits of models that a limit in dollars covers and whose price is not known."""
    charges: tuple[CountedLimit, ...]
    """The limits that are charged on admission, whatever becomes of the request."""


def limits_of(
    limits: Mapping[str, Limit], route: Route, models: Mapping[str, Model]
) -> RouteLimits | None:
    """The limits that count requests to ``route``; None when there is none, and nothing to do."""
    lines: list[CountedLimit] = []
    unpriced = 0
    for limit in limits.values():
        if limit.routes and route.name not in limit.routes:
            continue
        covered = [name for name in route.models if not limit.models or name in limit.models]
        if not covered:
            continue
        parts = [[name] for name in covered] if limit.per == "model" else [covered]
        lines += [_counted(limit, route, part, models) for part in parts]
        if limit.unit == "dollars":
            for name in covered:
                if not _priced(models[name]):
                    unpriced |= 1 << route.models.index(name)
    if not lines:
        return None
    lease = route.timeouts.total + LEASE_BEYOND
    every = (1 << len(route.models)) - 1
    return RouteLimits(
        lines=tuple(lines),
        models=route.models,
        terms=ReservationTerms(
            int(lease * 1000),
            grain_of(lease),
            every,
            limits=",".join(f"{line.capacity}/{line.rate}/{line.charge:d}" for line in lines),
        ),
        unpriced=unpriced,
        charges=tuple(line for line in lines if line.charge),
    )


def bits_of(limits: RouteLimits, models: Collection[str]) -> int:
    """The bits of those of ``models`` that the route has."""
    return sum(1 << at for at, name in enumerate(limits.models) if name in models)


def _counted(
    limit: Limit, route: Route, covered: Sequence[str], models: Mapping[str, Model]
) -> CountedLimit:
    scale = NANO if limit.unit == "dollars" else 1
    capacity = round((limit.amount if limit.burst is None else limit.burst) * scale)
    rate = 0.0 if limit.every is None else limit.amount * scale / (limit.every * 1000)
    prices = [models[name].price for name in covered]
    whole = len(covered) == len(route.models)
    by_model = limit.per == "model" or bool(limit.models)
    fixed = {"route": route.name, "model": covered[0], "app": "app"}.get(limit.per)
    return CountedLimit(
        name=limit.name,
        stem=limit_stem(limit.name, limit.unit),
        unit=limit.unit,
        calendar=limit.calendar,
        per=limit.per,
        scope=fixed,
        covers=(1 << len(route.models)) - 1
        if whole
        else sum(1 << route.models.index(name) for name in covered),
        models=frozenset(covered),
        charge=limit.unit == "requests" and not by_model,
        capacity=capacity,
        rate=rate,
        ttl=KEEP + (0 if rate == 0 else math.ceil(capacity / rate)) + _lease_ms(route),
        closed=limit.on_outage == "closed",
        # Dollars a million tokens are a thousand billionths a token.
        prompt_nano=max((price.input or 0.0) for price in prices) * 1000,
        output_nano=max((price.output or 0.0) for price in prices) * 1000,
        most=(
            f"x-ratelimit-limit-{limit.unit}",
            f"{capacity / NANO:.6f}" if limit.unit == "dollars" else str(capacity),
        ),
        remaining=f"x-ratelimit-remaining-{limit.unit}",
        reset=f"x-ratelimit-reset-{limit.unit}",
    )


def _lease_ms(route: Route) -> int:
    return int((route.timeouts.total + LEASE_BEYOND) * 1000)


def _priced(model: Model) -> bool:
    price = model.price
    return price.input is not None and (model.kind == "embeddings" or price.output is not None)
