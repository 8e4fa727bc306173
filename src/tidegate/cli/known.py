"""A switch names what is served: one that is mistyped would be in force everywhere, in vain."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import psycopg

from tidegate.base.errors import RuntimeStateError, UsageError
from tidegate.base.runtime import read_runtime
from tidegate.registry.releases import load_release
from tidegate.release.values import Release
from tidegate.spec import locate
from tidegate.spec.mistakes import nearest
from tidegate.stores.open import database_for
from tidegate.switches import list_keys, snapshot

Kind = Literal["route", "model", "tool", "tenant"]


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


def _tenants(app: str) -> set[str]:
    with database_for(locate(app).parent.resolve()) as url, psycopg.connect(url) as connection:
        return {key.tenant for key in list_keys(connection) if key.tenant is not None}


def _served(app: str, kind: Kind) -> set[str] | None:
    """Names in the release that the gateway was started with, and in those that have a weight."""
    try:
        runtime = read_runtime(locate(app).parent.resolve())
    except RuntimeStateError:
        return None
    with psycopg.connect(runtime.database_url) as connection:
        weighted = {one.release for one in snapshot(connection).traffic}
    releases = [load_release(runtime.registry, one) for one in {runtime.release, *weighted}]
    return {name for release in releases for name in _names(release, kind)}


def _names(release: Release, kind: Kind) -> Iterable[str]:
    if kind == "model":
        return release.models
    if kind == "tool":
        return release.tools
    return (*release.routes, *(release.models if release.gateway.direct_models else ()))
