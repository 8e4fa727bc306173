"""A release, compiled into the plans of its routes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping

import msgspec

from tidegate.base import ReleaseError
from tidegate.gateway.neutral import OfferedTool, OutputFormat
from tidegate.gateway.plan.budgets import HedgeBudget, RetryBudget
from tidegate.gateway.plan.checks import SchemaCheck
from tidegate.gateway.plan.limits import limits_of
from tidegate.gateway.plan.template import PromptTemplate
from tidegate.gateway.plan.terms import AskTerms
from tidegate.gateway.plan.values import Plan, Redact
from tidegate.gateway.targets import Target
from tidegate.release import Caps, Release, Route, fingerprint


def compile_plans(
    release: Release, digest: str, targets: Mapping[str, Target], redact: Redact | None = None
) -> dict[str, Plan]:
    """Name of each route (and of each model, where the spec lets clients name them) to its plan."""
    plans = {}
    if release.gateway.direct_models:
        for model in release.models.values():
            route = Route(name=model.name, kind=model.kind, models=(model.name,), caps=Caps())
            plans[model.name] = _plan(release, digest, route, targets, redact)
    for route in release.routes.values():
        plan = _plan(release, digest, route, targets, redact)
        variants = {}
        for name, variant in route.variants.items():
            other = msgspec.structs.replace(
                route, models=variant.models, prompt=variant.prompt, variants={}
            )
            # What a route may spend on asking twice is the route's, however many variants it has.
            varied = _plan(release, digest, other, targets, redact)
            budgets = {"retry_budget": plan.terms.retry_budget, "hedge": plan.terms.hedge}
            terms = msgspec.structs.replace(varied.terms, **budgets)
            variants[name] = msgspec.structs.replace(varied, terms=terms)
        plans[route.name] = msgspec.structs.replace(plan, variants=variants)
    return plans


def _plan(
    release: Release,
    digest: str,
    route: Route,
    targets: Mapping[str, Target],
    redact: Redact | None,
) -> Plan:
    chain = tuple(targets[name] for name in route.models)
    prompt = release.prompts[route.prompt] if route.prompt else None
    form = None
    if route.output is not None:
        name = "".join(c if c.isalnum() else "_" for c in route.name)
        form = OutputFormat(name, route.output.json_schema, True)
    return Plan(
        route=route,
        release=digest,
        models=release.models,
        journeys=release.journeys,
        targets=chain,
        fingerprint=fingerprint(
            release, route, [None if one.pooled else one.pool.origin.url for one in chain]
        ),
        terms=AskTerms(
            timeouts=route.timeouts,
            retries=route.retries,
            retry_budget=RetryBudget(route.retries.budget, 0.0),
            hedge=HedgeBudget(route.hedge) if route.hedge is not None else None,
            answer_bytes=route.caps.answer_bytes,
            checks=(SchemaCheck(route.output),) if route.output is not None else (),
        ),
        template=PromptTemplate(prompt) if prompt is not None else None,
        tools=tuple(_tool(release, name) for name in route.tools),
        format=form,
        limits=limits_of(release.limits, route, release.models),
        redact=redact,
    )


def _tool(release: Release, name: str) -> OfferedTool:
    tool = release.tools[name]
    return OfferedTool(tool.name, tool.description, tool.parameters)


def load_redactor(reference: str | None, app: str) -> Redact | None:
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
    redactor: Redact = function
    return redactor
