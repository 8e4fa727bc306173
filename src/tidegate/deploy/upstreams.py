"""The check that every model of a release can be reached from here, before a part starts."""

from __future__ import annotations

from collections.abc import Mapping

from tidegate.base import ReleaseError, Runtime, TidegateError
from tidegate.gateway import bind_model
from tidegate.release import Release, reachable_models


def require_bindable(release: Release, runtime: Runtime, environment: Mapping[str, str]) -> None:
    """Bind every model that a request can reach, as a worker will, and drop it again.

    Raises what is missing (a provider's key, a variable of a base URL, a provider) as it is when it
    is one thing, ReleaseError ``models_unbound`` with all of them when there are more.
    """
    found: dict[str, TidegateError] = {}
    for model in reachable_models(release):
        try:
            bind_model(model, runtime, environment)
        except TidegateError as error:
            found.setdefault(error.message, error)
    if len(found) == 1:
        raise next(iter(found.values()))
    if found:
        lines = "".join(f"\n  - {one.message}\n    {one.cure}" for one in found.values())
        raise ReleaseError(
            "models_unbound",
            f"{len(found)} things are missing to reach the models:{lines}",
            cure="do what stands below each, then run tidegate up again",
        )
