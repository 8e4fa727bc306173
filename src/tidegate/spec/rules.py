"""Rules between the parts of a spec: names that exist, kinds that fit, no circles.

Pure: decided from the spec and the names that were written. Rules for the contents of files stand
in ``contents``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tidegate.spec.files import SpecFiles, uses
from tidegate.spec.limit_rules import limits
from tidegate.spec.mistakes import Finding, Path, nearest, one_of
from tidegate.spec.part_rules import WrittenNames, inputs, models
from tidegate.spec.route_types import ModelChoice, RouteSpec, StaleStep, TemplateStep
from tidegate.spec.types import Spec


def findings(spec: Spec, names: WrittenNames) -> Iterator[Finding]:
    """Findings of all rules, in the order of the sections."""
    for rule in RULES:
        yield from rule(spec, names)


def missing_files(spec: Spec, files: SpecFiles) -> Iterator[Finding]:
    """A finding for each place that names a file which cannot be used."""
    for use in uses(spec):
        if error := files.missing.get(use.path):
            yield Finding(path=use.place, message=error.message, nearest=error.nearest)


def _unknown(path: Path, what: str, name: str, valid: frozenset[str]) -> Finding:
    return Finding(
        path=path,
        message=f"there is no {what} {name}",
        expected=one_of(valid) or f"a {what}; none is defined",
        nearest=nearest(name, valid),
    )


def _route_models(at: Path, route: RouteSpec) -> Iterator[tuple[Path, str]]:
    if isinstance(route.models, ModelChoice):
        yield (*at, "models", "small"), route.models.small
        yield (*at, "models", "large"), route.models.large
    else:
        yield (*at, "models"), route.models
    for index, step in enumerate(route.fallback):
        if isinstance(step, str):
            yield (*at, "fallback", index), step
    for name, variant in route.variants.items():
        place: Path = (*at, "variants", name, "models")
        if isinstance(variant.models, ModelChoice):
            yield (*place, "small"), variant.models.small
            yield (*place, "large"), variant.models.large
        elif variant.models is not None:
            yield place, variant.models


def _routes(spec: Spec, names: WrittenNames) -> Iterator[Finding]:
    for name, route in spec.routes.items():
        at: Path = ("routes", name)
        for place, model in _route_models(at, route):
            if model not in names["models"]:
                yield _unknown(place, "model", model, names["models"])
        if route.prompt and route.prompt not in names["prompts"]:
            yield _unknown((*at, "prompt"), "prompt", route.prompt, names["prompts"])
        for index, tool in enumerate(route.tools):
            if tool not in names["tools"]:
                yield _unknown((*at, "tools", index), "tool", tool, names["tools"])
        yield from _variants(at, route, names)
        yield from _kinds(spec, at, route)
        yield from _times(at, route)
        yield from _queue(at, route)
        yield from _fallback_order(at, route)


def _variants(at: Path, route: RouteSpec, names: WrittenNames) -> Iterator[Finding]:
    if route.variants and route.flag is None:
        message = "no flag chooses between the variants"
        yield Finding(path=(*at, "variants"), message=message, expected="key flag", at_key=True)
    for name, variant in route.variants.items():
        place: Path = (*at, "variants", name)
        if variant.models is None and variant.prompt is None:
            message = f"variant {name} changes nothing"
            yield Finding(path=place, message=message, expected="models or prompt")
        if variant.prompt and variant.prompt not in names["prompts"]:
            yield _unknown((*place, "prompt"), "prompt", variant.prompt, names["prompts"])


def _kinds(spec: Spec, at: Path, route: RouteSpec) -> Iterator[Finding]:
    answering = spec.models.get(route.answering())
    if answering is None:
        return
    for place, name in _route_models(at, route):
        other = spec.models.get(name)
        if other is not None and other.kind != answering.kind:
            yield Finding(
                path=place,
                message=f"model {name} is for {other.kind}, this route for {answering.kind}",
                expected=f"a model of kind {answering.kind}",
            )
    if answering.kind == "embeddings":
        for key in ("prompt", "tools", "output", "guard"):
            if getattr(route, key):
                message = f"{key} is not used by an embeddings route"
                yield Finding(path=(*at, key), message=message, expected="no such key", at_key=True)
        for variant in (name for name, one in route.variants.items() if one.prompt):
            yield Finding(
                path=(*at, "variants", variant, "prompt"),
                message="prompt is not used by an embeddings route",
                expected="no such key",
                at_key=True,
            )


def _times(at: Path, route: RouteSpec) -> Iterator[Finding]:
    times = route.timeouts
    for key in sorted(times.model_fields_set):
        if getattr(times, key) <= 0:
            message = f"timeout {key} is 0"
            yield Finding(path=(*at, "timeouts", key), message=message, expected="more than 0s")
        elif key != "total" and getattr(times, key) > times.total:
            yield Finding(
                path=(*at, "timeouts", key),
                message=f"timeout {key} is longer than total, so it never ends anything",
                expected="at most total",
            )


def _queue(at: Path, route: RouteSpec) -> Iterator[Finding]:
    if route.queue is not None and route.queue.wait > route.timeouts.total:
        yield Finding(
            path=(*at, "queue", "wait"),
            message="a request may wait longer than timeouts.total, so it never ends anything",
            expected="at most total",
        )
    surge = route.caps.surge
    if surge is not None and surge.above <= 0:
        place: Path = (*at, "caps", "surge", "above")
        yield Finding(path=place, message="above is 0: the cap always holds", expected="more")
    cap = route.caps.output_tokens
    if surge is not None and cap is not None and surge.output_tokens >= cap:
        yield Finding(
            path=(*at, "caps", "surge", "output_tokens"),
            message="the cap under load is not below the cap at any load",
            expected=f"less than {cap}",
        )


def _fallback_order(at: Path, route: RouteSpec) -> Iterator[Finding]:
    """Models, then a kept answer, then fixed text: what stands after the last is never reached."""
    order = {str: 0, StaleStep: 1, TemplateStep: 2}
    reached = 0
    for index, step in enumerate(route.fallback):
        rank = order[type(step)]
        if rank < reached or (rank and rank == reached):
            yield Finding(
                path=(*at, "fallback", index),
                message="this step stands after one that ends the chain",
                expected="models first, then one {stale: ...}, then one {template: ...}",
            )
        reached = max(reached, rank)


def _gateway(spec: Spec, _: WrittenNames) -> Iterator[Finding]:
    if spec.gateway.idempotency <= 0:
        path: Path = ("gateway", "idempotency")
        yield Finding(path=path, message="idempotency is 0", expected="more than 0s")


def _journeys(spec: Spec, names: WrittenNames) -> Iterator[Finding]:
    for name, journey in spec.journeys.items():
        for index, route in enumerate(journey.routes):
            if route not in names["routes"]:
                at: Path = ("journeys", name, "routes", index)
                yield _unknown(at, "route", route, names["routes"])


def _evals(spec: Spec, names: WrittenNames) -> Iterator[Finding]:
    for name, one in spec.evals.items():
        if one.dataset not in names["datasets"]:
            yield _unknown(("evals", name, "dataset"), "data set", one.dataset, names["datasets"])
        if one.route and one.route not in names["routes"]:
            yield _unknown(("evals", name, "route"), "route", one.route, names["routes"])
        needed = {"zero_failure": "rate", "threshold": "rate", "noninferiority": "margin"}
        key = needed.get(one.gate.test) if one.gate else None
        if one.gate and key and getattr(one.gate, key) is None:
            message = f"a {one.gate.test} gate has no {key}"
            yield Finding(path=("evals", name, "gate"), message=message, expected=f"key {key}")


def _train(spec: Spec, _: WrittenNames) -> Iterator[Finding]:
    canary = spec.train.canary
    if canary and list(canary.steps) != sorted(set(canary.steps)):
        at: Path = ("release", "canary", "steps")
        yield Finding(path=at, message="the steps do not grow", expected="growing shares")
    if len(set(spec.train.stages)) != len(spec.train.stages):
        yield Finding(
            path=("release", "stages"), message="a stage stands twice", expected="each stage once"
        )


def _environments(spec: Spec, names: WrittenNames) -> Iterator[Finding]:
    known = names["environments"]
    circles = _circles(spec)
    for name, environment in spec.environments.items():
        at: Path = ("environments", name, "from")
        if environment.source is None:
            continue
        if environment.source not in known:
            yield _unknown(at, "environment", environment.source, known)
        elif circle := circles.get(name):
            yield Finding(
                path=at,
                message=f"the environments come from each other in a circle: {circle}",
                expected="a chain with a start",
            )


def _circles(spec: Spec) -> dict[str, str]:
    """Each environment that comes from itself in the end, to the way there; every one is walked
    once."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    for start in spec.environments:
        walk: dict[str, int] = {}
        at: str | None = start
        while at in spec.environments and at not in seen:
            seen.add(at)
            walk[at] = len(walk)
            at = spec.environments[at].source
        if at in walk:
            circle = list(walk)[walk[at] :]
            for step, name in enumerate(circle[:100]):
                way = [*circle[step:], *circle[:step]][:8]
                found[name] = " -> ".join((*way, *(["..."] if len(circle) > 8 else []), name))
    return found


RULES: tuple[Callable[[Spec, WrittenNames], Iterator[Finding]], ...] = (
    models,
    inputs,
    _routes,
    limits,
    _journeys,
    _evals,
    _train,
    _environments,
    _gateway,
)
