"""Notices about a valid spec: unknown prices, fallbacks that cannot help."""

from __future__ import annotations

from collections.abc import Iterator

from tidegate.spec.mistakes import Finding
from tidegate.spec.types import Spec


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
