"""What is valid and yet worth knowing: keys that are not acted upon yet, unknown prices and
providers, fallbacks that fall nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points

from tidegate.spec.mistakes import Finding, Path, nearest
from tidegate.spec.types import Spec

NOT_YET: dict[tuple[str, ...], str] = {
    ("routes", "*", "models", "choose"): "the large model answers",
    ("routes", "*", "cache", "semantic"): "only identical requests are answered from the cache",
    ("routes", "*", "guard"): "only the schema of output is checked",
    ("journeys", "*", "slo"): "the profile shows the figures; nothing is held or stopped",
    ("tools", "*", "cost"): "it is not added to what a request costs",
    ("datasets", "*", "cluster"): "no eval reads it",
    ("evals",): "no eval is run",
    ("release",): "tidegate build makes releases; nothing moves them in stages",
    ("environments",): "every environment runs the same release",
}
"""Path pattern (``*`` any name, ``#`` any index) to what happens instead."""


def not_yet(plain: object) -> Iterator[Finding]:
    """A notice for each key of the table that stands in the tree."""
    for pattern, instead in NOT_YET.items():
        for path in _matches(plain, pattern, ()):
            yield Finding(
                path=path, message=f"{pattern[-1]} is not acted on yet: {instead}", at_key=True
            )


def _matches(plain: object, pattern: tuple[str, ...], path: Path) -> Iterator[Path]:
    if not pattern:
        yield path
    elif pattern[0] == "#":
        if isinstance(plain, list):
            for at, item in enumerate(plain):
                yield from _matches(item, pattern[1:], (*path, at))
    elif isinstance(plain, dict):
        for name in plain if pattern[0] == "*" else (pattern[0],):
            if name in plain:
                yield from _matches(plain[name], pattern[1:], (*path, name))


def unknown_prices(spec: Spec) -> Iterator[Finding]:
    """A notice for each model whose cost will be unknown."""
    for name, model in spec.models.items():
        needed = ("input",) if model.kind == "embeddings" else ("input", "output")
        unknown = [part for part in needed if getattr(model.price, part) is None]
        if unknown:
            yield Finding(
                path=("models", name),
                message=f"the {' and '.join(unknown)} price of model {name} is unknown: its cost "
                "will be counted as unknown, not as 0",
                at_key=True,
            )


def installed_providers() -> frozenset[str]:
    """Names that ``provider`` may have in this environment, plug-ins included."""
    return frozenset({"local", *entry_points(group="tidegate.providers").names})


def unknown_providers(spec: Spec, known: frozenset[str]) -> Iterator[Finding]:
    """A notice for each provider that is not in ``known``: it may be a plug-in of the machine where
    the release is served, or a name typed wrongly."""
    for name, model in spec.models.items():
        if model.provider not in known:
            meant = nearest(model.provider, known)
            yield Finding(
                path=("models", name, "provider"),
                message=f"no provider {model.provider} is installed here"
                + (f"; did you mean {meant}?" if meant else f" ({', '.join(sorted(known))} are)"),
            )


def asked_twice(spec: Spec) -> Iterator[Finding]:
    """A notice for each fallback that names a model which has failed by then."""
    for name, route in spec.routes.items():
        asked = {route.answering()}
        for index, step in enumerate(route.fallback):
            if isinstance(step, str):
                if step in asked:
                    yield Finding(
                        path=("routes", name, "fallback", index),
                        message=f"model {step} stands before this fallback already: what failed "
                        "there is only tried again",
                    )
                asked.add(step)
