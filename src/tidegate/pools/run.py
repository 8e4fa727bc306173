"""Pools: from a pinned model to the supervised process that serves it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tidegate.base import (
    ChildSpec,
    PoolAddress,
    PoolError,
    Supervised,
    Supervisor,
    TidegateError,
    log_folder,
)
from tidegate.pools.engines import find_engine
from tidegate.pools.loopback import free_port, is_free, make_probe
from tidegate.pools.ports import KEY_VARIABLE, Launch
from tidegate.registry import Progress, Store, fetch, quiet
from tidegate.release import Model

_PORTS_TRIED = 3


@dataclass(frozen=True, kw_only=True)
class ModelPool:
    """The process of one model: how to start it, and the address it serves.

    Both stay the same over restarts, so the runtime file stays true."""

    model: Model
    spec: ChildSpec
    address: PoolAddress
    port: int


def fetch_files(
    model: Model, store: Store, app: Path, progress: Progress = quiet
) -> dict[str, Path]:
    """The files of ``model`` by role, fetched when they are not there; raises ArtifactError."""
    return {
        role: fetch(artifact, store, progress, app=app)
        for role, artifact in model.artifacts.items()
    }


def plan_pool(
    model: Model,
    files: Mapping[str, Path],
    state: Path,
    *,
    port: int | None = None,
    key: str | None = None,
) -> ModelPool:
    """The pool of ``model`` on a free port with a fresh key; logs to ``<state>/log``.

    Raises PoolError when no engine fits or a file is missing.
    """
    port = free_port() if port is None else port
    key = secrets.token_urlsafe(24) if key is None else key
    command = find_engine(model)(Launch(model=model, files=dict(files), port=port))
    name = f"pool-{model.name}"
    spec = ChildSpec(
        name=name,
        argv=command.argv,
        log=log_folder(state) / f"{name}.log",
        env={**command.env, KEY_VARIABLE: key},
        hide=("TIDEGATE_SECRET_",),  # an engine needs no provider's keys
        probe=make_probe(port, key, model.upstream),
        ready_within=command.ready_within,
        grace=6.0,
    )
    address = PoolAddress(base_url=f"http://127.0.0.1:{port}/v1", api_key=key)
    return ModelPool(model=model, spec=spec, address=address, port=port)


async def start_pool(
    supervisor: Supervisor, model: Model, files: Mapping[str, Path], state: Path
) -> tuple[ModelPool, Supervised]:
    """Start ``model`` under ``supervisor`` and wait until it answers.

    Moves to another port when somebody else took the first one in the meantime. Raises PoolError
    ``pool_not_ready`` with the end of its log; it is then not running.
    """
    for _ in range(_PORTS_TRIED):
        pool = plan_pool(model, files, state)
        child = supervisor.add(pool.spec)
        try:
            await child.ready()
        except TidegateError as error:
            await child.stop()
            failure = PoolError(
                "pool_not_ready",
                f"model {model.name} does not run: {error.message}",
                cure=f"read {pool.spec.log}",
            )
            if is_free(pool.port):
                break
        else:
            return pool, child
    raise failure
