"""Provider adapters, one file each; built-ins and plug-ins are found the same way."""

from __future__ import annotations

from importlib.metadata import entry_points

from tidegate.base import ReleaseError
from tidegate.gateway.ports import Provider

GROUP = "tidegate.providers"


def find_provider(name: str) -> Provider:
    """The adapter registered as ``name``. Raises ReleaseError with the names there are."""
    known = {point.name: point for point in entry_points(group=GROUP)}
    if name not in known:
        raise ReleaseError(
            "provider_unknown",
            f"there is no provider {name!r}",
            cure=f"use one of {', '.join(sorted(known))}, or install the plug-in that has it",
        )
    provider: Provider = known[name].load()()
    return provider
