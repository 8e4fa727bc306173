"""Rules for limits: one unit each, and something that they count; pure."""

from __future__ import annotations

from collections.abc import Iterator

from tidegate.spec.limit_types import LimitSpec
from tidegate.spec.mistakes import Finding, Path, nearest, one_of
from tidegate.spec.part_rules import WrittenNames
from tidegate.spec.types import Spec

_UNITS = ("requests", "tokens", "dollars")


def limits(spec: Spec, names: WrittenNames) -> Iterator[Finding]:
    """Every mistake in ``limits``."""
    for name, limit in spec.limits.items():
        at: Path = ("limits", name)
        yield from _units(at, limit)
        unknown = list(_unknown(at, limit, names))
        yield from unknown or _counts(at, limit, spec)


def _units(at: Path, limit: LimitSpec) -> Iterator[Finding]:
    named = [unit for unit in _UNITS if getattr(limit, unit) is not None]
    if len(named) != 1:
        what = f"{' and '.join(named)} are limited at once" if named else "nothing is limited"
        yield Finding(path=at, message=what, expected=f"exactly one of: {', '.join(_UNITS)}")
    if limit.burst is None:
        return
    place = (*at, "burst")
    if isinstance(limit.every, str):
        message = f"a budget for each {limit.every} has no burst"
        yield Finding(path=place, message=message, expected="no such key", at_key=True)
    elif limit.unit in ("requests", "tokens") and (limit.burst < 1 or limit.burst % 1):
        message = f"a burst of {limit.burst:g} {limit.unit}"
        yield Finding(path=place, message=message, expected="a whole number from 1")


def _unknown(at: Path, limit: LimitSpec, names: WrittenNames) -> Iterator[Finding]:
    for key, section in (("route", "routes"), ("model", "models")):
        for name in getattr(limit.match, key):
            if name not in names[section]:
                yield Finding(
                    path=(*at, "match", key),
                    message=f"there is no {key} {name}",
                    expected=one_of(names[section]) or f"a {key}; none is defined",
                    nearest=nearest(name, names[section]),
                )


def _counts(at: Path, limit: LimitSpec, spec: Spec) -> Iterator[Finding]:
    """A limit that no request can ever reach is a mistake, and so is money without a price."""
    if limit.per in ("key", "tenant") and spec.gateway.keys == "off":
        yield Finding(
            path=(*at, "per"),
            message=f"gateway.keys is off, so no request has a {limit.per}",
            expected="per: route, model or app; or gateway: {keys: required}",
        )
    covered = _covered(limit, spec)
    for named in limit.match.model:
        if named not in covered:
            yield Finding(
                path=(*at, "match", "model"),
                message=f"no request that this limit counts can be answered by model {named}",
                expected=one_of(_reached(limit, spec)) or "a model of a route",
            )
    if limit.dollars is None:
        return
    for name in sorted(covered):
        model = spec.models[name]
        needed = ("input",) if model.kind == "embeddings" else ("input", "output")
        unknown = [part for part in needed if getattr(model.price, part) is None]
        if unknown:
            yield Finding(
                path=(*at, "dollars"),
                message=f"the {' and '.join(unknown)} price of model {name} is unknown, so its "
                "dollars cannot be counted",
                expected=f"models.{name}.price, 0 where it is free",
            )


def _reached(limit: LimitSpec, spec: Spec) -> set[str]:
    """Models that a request to the routes of the limit may ask."""
    reached: set[str] = set()
    for name, route in spec.routes.items():
        if not limit.match.route or name in limit.match.route:
            reached |= {route.answering(), *route.fallback_models()}
    if spec.gateway.direct_models:
        named = limit.match.route
        reached |= {name for name in spec.models if not named or name in named}
    return reached & spec.models.keys()


def _covered(limit: LimitSpec, spec: Spec) -> set[str]:
    reached = _reached(limit, spec)
    return reached & set(limit.match.model) if limit.match.model else reached
