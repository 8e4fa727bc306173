"""Put a worker together: read the runtime, load the release, bind its models, open its stores."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tidegate.base.errors import ReleaseError
from tidegate.base.runtime import Runtime
from tidegate.base.variables import bind
from tidegate.gateway.admit import Limits
from tidegate.gateway.cache import ExactCache
from tidegate.gateway.call import Target, make_target
from tidegate.gateway.door import Door
from tidegate.gateway.idempotency import Idempotency
from tidegate.gateway.plan import compile_plans, load_redactor
from tidegate.gateway.queue import Queue
from tidegate.gateway.record import Recorder
from tidegate.ledger.spool import SpoolWriter
from tidegate.registry.releases import load_release
from tidegate.release.values import Model, reachable_models
from tidegate.secrets.resolve import resolve
from tidegate.stores.counters import Counters
from tidegate.stores.settings import read_store_settings
from tidegate.stores.valkey_client import ValkeyClient


class Parts(msgspec.Struct, frozen=True):
    """A worker's door and what must be started and stopped with it."""

    door: Door
    store: ValkeyClient
    spool: SpoolWriter
    targets: dict[str, Target]
    runtime: Runtime


def assemble(state: Path, environment: Mapping[str, str]) -> Parts:
    """Build everything that a worker serves from. Raises TidegateError with what is missing."""
    runtime = msgspec.json.decode((state / "run" / "runtime.json").read_bytes(), type=Runtime)
    release = load_release(runtime.registry, runtime.release)
    targets = {
        model.name: bind_model(model, runtime, environment) for model in reachable_models(release)
    }
    patience = read_store_settings(environment).valkey_deadline
    store = ValkeyClient(runtime.valkey_url, deadline=patience)
    spool = SpoolWriter(runtime.spool)
    counters = Counters(store)
    redactor = load_redactor(release.ledger.redact, runtime.app)
    recorder = Recorder(spool, release.models, os.getpid(), redactor, counters)
    plans = compile_plans(release, runtime.release, targets)
    door = Door(
        release,
        runtime.release,
        plans,
        ExactCache(store),
        Limits(counters),
        Queue(runtime.run / "slots"),
        Idempotency(store, release.gateway.idempotency),
        recorder,
    )
    return Parts(door, store, spool, targets, runtime)


def bind_model(model: Model, runtime: Runtime, environment: Mapping[str, str]) -> Target:
    """Where a model is served in this environment, and with which key."""
    address = runtime.pools.get(model.name)
    if address is not None:
        return make_target(model, address.base_url, address.api_key, pooled=True)
    if model.provider == "local":
        raise ReleaseError(
            "pool_missing",
            f"no pool serves the local model {model.name!r}",
            cure="start the app with tidegate up, which starts its pools",
        )
    bound = bind(model.base_url or "", environment)
    if bound.unset or bound.broken or not bound.text:
        raise ReleaseError(
            "base_url_unbound",
            f"model {model.name!r} has no base URL here: {', '.join(bound.unset) or 'none given'}",
            cure="set the variables named in base_url before tidegate up",
        )
    keys = None
    if model.keys is not None:
        keys = resolve(model.keys, Path(runtime.state), environment).reveal()
    return make_target(model, bound.text, keys)
