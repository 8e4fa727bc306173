"""The refusal of a request whose models are all switched off."""

from __future__ import annotations

from collections.abc import Iterable

from tidegate.base import RequestError

LIFTED = "wait until an operator lifts the kill (tidegate switches lists them)"


def model_killed(route: str, models: Iterable[str]) -> RequestError:
    """No model of the route is left."""
    return RequestError(
        503,
        "model_killed",
        f"route {route!r} has no model left: {', '.join(models)} switched off by an operator",
        cure=f"ask another route, or {LIFTED}",
        param="model",
    )
