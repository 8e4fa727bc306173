"""The processes and addresses of one app on this machine, decided before the first one starts."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.base import ChildSpec, Runtime


@dataclass(frozen=True, kw_only=True)
class LocalApp:
    """The processes of one app in the order they start; they stop in the reverse order."""

    runtime: Runtime
    """Every address, decided already."""
    engines: tuple[ChildSpec, ...]
    """The embedded ones; none where the engine is external."""
    pools: tuple[ChildSpec, ...]
    parts: tuple[ChildSpec, ...]
    """Loader, operator's door, gateway: they read the runtime file."""
    ready_url: str
    """Answers 200 once the gateway serves."""
