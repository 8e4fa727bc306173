"""Validation of the names in switches against what the running app serves.

A mistyped name would be in force on every worker and match nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from tidegate.base import RuntimeStateError, UsageError, read_runtime
from tidegate.registry import load_release
from tidegate.release import Release
from tidegate.secrets import plain_name
from tidegate.spec import locate, nearest
from tidegate.stores import connected
from tidegate.switches import EVERY, list_keys, snapshot

Killed = Literal["route", "model", "tool", "tenant"]
Kind = Killed | Literal["secret"]


def require_known(app: str, kind: Kind, name: str) -> None:
    """Raise UsageError ``switch_name_unknown`` when nothing that the running app serves has this
    name. Where the app runs elsewhere, nothing is known and nothing is refused."""
    known = _tenants(app) if kind == "tenant" else _served(app, kind)
    if known is None or name in known:
        return
    near = nearest(name, known)
    raise UsageError(
        "switch_name_unknown",
        f"no {kind} that is served is named {name!r}",
        cure=f"did you mean {near}?"
        if near
        else f"{kind}s are: {', '.join(sorted(known)) or 'none'}; or add --force",
    )


def require_surge(app: str, route: str) -> None:
    """Raise UsageError ``surge_missing`` when what is served has no cap under load to hold or to
    lift, for this route or (EVERY) for any."""
    releases = _releases(app)
    if releases is None:
        return
    routes = [one for release in releases for one in release.routes.values()]
    if not any(one.caps.surge for one in routes if route in (EVERY, one.name)):
        raise UsageError(
            "surge_missing",
            f"{f'route {route} has no' if route else 'no route has a'} cap under load",
            cure="use --output-tokens, or write caps.surge in tidegate.yaml",
        )


def _tenants(app: str) -> set[str]:
    with connected(locate(app).parent.resolve()) as connection:
        return {key.tenant for key in list_keys(connection) if key.tenant is not None}


def _served(app: str, kind: Kind) -> set[str] | None:
    releases = _releases(app)
    if releases is None:
        return None
    return {name for release in releases for name in _names(release, kind)}


def _releases(app: str) -> list[Release] | None:
    """The release that the gateway was started with, and those that have a weight."""
    folder = locate(app).parent.resolve()
    try:
        runtime = read_runtime(folder)
    except RuntimeStateError:
        return None
    with connected(folder) as connection:
        weighted = {one.release for one in snapshot(connection).traffic}
    return [load_release(runtime.registry, one) for one in {runtime.release, *weighted}]


def _names(release: Release, kind: Kind) -> Iterable[str]:
    if kind == "model":
        return release.models
    if kind == "tool":
        return release.tools
    if kind == "secret":
        return (plain_name(one.keys) for one in release.models.values() if one.keys is not None)
    return (*release.routes, *(release.models if release.gateway.direct_models else ()))
