"""A release, compiled once into what the stages read on every request."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from tidegate.base.errors import ReleaseError
from tidegate.gateway.admit import limits_of
from tidegate.gateway.call import HedgeBudget, RetryBudget, Target
from tidegate.gateway.guard import OutputGuard
from tidegate.gateway.render import Template, compile_template
from tidegate.release.fingerprint import fingerprint
from tidegate.release.values import Caps, Release, Route


class Plan:
    """One route of one release. ``fingerprint`` changes with anything that may change an answer."""

    def __init__(
        self, release: Release, digest: str, route: Route, targets: Mapping[str, Target]
    ) -> None:
        self.route = route
        self.release = digest
        self.models = release.models
        self.journeys: Collection[str] = release.journeys
        self.variants: dict[str, Plan] = {}
        """What is served where the route's flag says so."""
        self.redact: Callable[[str], str] | None = None
        """Sees the content of this route's requests before the disk does."""
        self.targets = [targets[name] for name in route.models]
        self.template: Template | None = None
        self.guard: OutputGuard | None = None
        self.hedge = HedgeBudget(route.hedge) if route.hedge is not None else None
        self.retries = RetryBudget(route.retries.budget, 0.0)
        self.tools: bytes | None = None
        self.response_format: bytes | None = None
        prompt = release.prompts[route.prompt] if route.prompt else None
        if prompt is not None:
            self.template = compile_template(prompt)
        if route.tools:
            self.tools = msgspec.json.encode([_tool(release, name) for name in route.tools])
        if route.output is not None:
            self.guard = OutputGuard(route.output)
            self.response_format = msgspec.json.encode(
                {
                    "type": "json_schema",
                    "json_schema": {
                        "name": "".join(c if c.isalnum() else "_" for c in route.name),
                        "strict": True,
                        "schema": route.output.json_schema,
                    },
                }
            )
        self.limits = limits_of(release.limits, route, release.models)
        self.fingerprint = fingerprint(
            release, route, [None if one.pooled else one.pool.origin.url for one in self.targets]
        )


def _tool(release: Release, name: str) -> dict[str, Any]:
    tool = release.tools[name]
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    return {"type": "function", "function": function}


def compile_plans(release: Release, digest: str, targets: Mapping[str, Target]) -> dict[str, Plan]:
    """Name of each route (and of each model, where the spec lets clients name them) to its plan."""
    plans = {}
    if release.gateway.direct_models:
        for model in release.models.values():
            route = Route(name=model.name, kind=model.kind, models=(model.name,), caps=Caps())
            plans[model.name] = Plan(release, digest, route, targets)
    for route in release.routes.values():
        plan = plans[route.name] = Plan(release, digest, route, targets)
        for name, variant in route.variants.items():
            other = msgspec.structs.replace(
                route, models=variant.models, prompt=variant.prompt, variants={}
            )
            variant_plan = plan.variants[name] = Plan(release, digest, other, targets)
            # What a route may spend on trying twice is the route's, however many variants it has.
            variant_plan.retries, variant_plan.hedge = plan.retries, plan.hedge
    return plans


def load_redactor(reference: str | None, app: str) -> Callable[[str], str] | None:
    """The function named ``package.module:function``, installed or in the folder ``app``.

    Raises ReleaseError when there is none."""
    if reference is None:
        return None
    if app not in sys.path:
        sys.path.append(app)  # last, so that no file of the app hides an installed module
    module, _, name = reference.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ReleaseError(
            "redactor_missing",
            f"ledger.redact names {reference!r}, which cannot be loaded: {error}",
            cure="install the package beside tidegate, or correct ledger.redact",
        ) from None
    if not callable(function):
        raise ReleaseError(
            "redactor_missing",
            f"ledger.redact names {reference!r}, which is not a function",
            cure="name a function that takes and returns text",
        )
    redactor: Callable[[str], str] = function
    return redactor
