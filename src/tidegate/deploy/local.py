"""The plan of an app on this machine: engines, pools and parts, with every address decided."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tidegate.base import STATE_FOLDER, ChildSpec, PoolAddress, Runtime
from tidegate.deploy.first_key import ensure_first_key, operator_token
from tidegate.deploy.rules import Doors, part_specs
from tidegate.deploy.values import LocalApp
from tidegate.stores import (
    StoreSettings,
    ensure_database,
    migrate,
    postgres_place,
    postgres_spec,
    valkey_spec,
    valkey_url,
)


def plan_app(
    folder: Path,
    release: str,
    doors: Doors,
    stores: StoreSettings,
    pools: Mapping[str, tuple[ChildSpec, PoolAddress]],
) -> LocalApp:
    """Everything about the app in ``folder`` that is decided before a process starts.

    ``release`` is a digest in its registry. Makes the data of an embedded PostgreSQL when it is
    not there yet; raises StoreError when it cannot be made.
    """
    state = folder / STATE_FOLDER
    engines: list[ChildSpec] = []
    database, valkey = stores.database_url, stores.valkey_url
    if database is None:
        engines.append(postgres_spec(state))
        database = postgres_place(state).url()
    if valkey is None:
        engines.append(valkey_spec(state))
        valkey = valkey_url(state)
    runtime = Runtime(
        app=str(folder),
        state=str(state),
        pid=os.getpid(),
        release=release,
        database_url=database,
        valkey_url=valkey,
        gateway_url=doors.gateway_url,
        operator_url=doors.operator_url,
        operator_token=operator_token(state / "run"),
        pools={name: address for name, (_, address) in pools.items()},
    )
    return LocalApp(
        runtime=runtime,
        engines=tuple(engines),
        pools=tuple(spec for spec, _ in pools.values()),
        parts=part_specs(state, doors),
        ready_url=f"{doors.gateway_url}/ready",
    )


def prepare_database(app: LocalApp) -> None:
    """Create and migrate the database and make the first key; the engines must run."""
    if any(engine.name == "postgres" for engine in app.engines):
        ensure_database(postgres_place(Path(app.runtime.state)))
    migrate(app.runtime.database_url)
    ensure_first_key(app.runtime.database_url, app.runtime.run)
