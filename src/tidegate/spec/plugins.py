"""Names in a spec that mean a plug-in: providers, guards, evaluators."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points

import msgspec

from tidegate.spec.mistakes import Finding, Path, nearest, one_of
from tidegate.spec.types import Spec


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """The plug-ins of this environment, built-in ones included, by what they are for."""

    providers: frozenset[str] = frozenset()
    guards: frozenset[str] = frozenset()
    evaluators: frozenset[str] = frozenset()


def installed() -> Installed:
    """What the entry points of this environment name."""
    return Installed(
        providers=frozenset({"local", *entry_points(group="tidegate.providers").names}),
        guards=frozenset(entry_points(group="tidegate.guards").names),
        evaluators=frozenset(entry_points(group="tidegate.evaluators").names),
    )


def unknown_checks(spec: Spec, here: Installed) -> Iterator[Finding]:
    """A finding for each guard and evaluator that is not installed."""
    for name, route in spec.routes.items():
        for index, guard in enumerate(route.guard):
            if guard not in here.guards:
                yield _unknown(("routes", name, "guard", index), "guard", guard, here.guards)
    for name, one in spec.evals.items():
        if one.evaluator not in here.evaluators:
            path: Path = ("evals", name, "evaluator")
            yield _unknown(path, "evaluator", one.evaluator, here.evaluators)


def _unknown(path: Path, what: str, name: str, valid: frozenset[str]) -> Finding:
    return Finding(
        path=path,
        message=f"there is no {what} {name}" + ("" if valid else ": none is installed here"),
        expected=one_of(valid) or f"the name of an installed {what}",
        nearest=nearest(name, valid),
    )


def unknown_providers(spec: Spec, here: Installed) -> Iterator[Finding]:
    """A notice for each provider that is not installed: it may be a plug-in of the machine where
    the release is served, or a name typed wrongly."""
    for name, model in spec.models.items():
        if model.provider not in here.providers:
            meant = nearest(model.provider, here.providers)
            known = f" ({', '.join(sorted(here.providers))} are)"
            yield Finding(
                path=("models", name, "provider"),
                message=f"no provider {model.provider} is installed here"
                + (f"; did you mean {meant}?" if meant else known),
            )
