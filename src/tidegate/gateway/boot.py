"""Put a worker together: read the runtime, load the release, bind its models, open its stores."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from tidegate.base import ReleaseError, Runtime, TidegateError, bind, canonical_json
from tidegate.gateway.cache import ExactCache
from tidegate.gateway.dialects import find_dialects
from tidegate.gateway.idempotency import Idempotency
from tidegate.gateway.limits import Limits
from tidegate.gateway.plan import FlagEvaluator, LoadedRelease, compile_plans, load_redactor
from tidegate.gateway.ports import ClientDialect
from tidegate.gateway.queue import RouteQueues
from tidegate.gateway.record import Recorder
from tidegate.gateway.releases import Releases
from tidegate.gateway.targets import Target, make_target, not_here, settings_of
from tidegate.gateway.worker_state import WorkerState
from tidegate.ledger import SpoolWriter
from tidegate.registry import load_release
from tidegate.release import Model, Release, reachable_models
from tidegate.secrets import resolve
from tidegate.stores import Counters, ValkeyClient, read_store_settings
from tidegate.switches import FlagDocument, SecretKey


class Parts(msgspec.Struct, frozen=True):
    """A worker's state and what must be started and stopped with it."""

    state: WorkerState
    dialects: Mapping[str, ClientDialect]
    """By the path of their endpoint."""
    store: ValkeyClient
    counters: Counters
    spool: SpoolWriter
    runtime: Runtime


def assemble(state: Path, environment: Mapping[str, str]) -> Parts:
    """Build everything that a worker serves from. Raises TidegateError with what is missing."""
    runtime = msgspec.json.decode((state / "run" / "runtime.json").read_bytes(), type=Runtime)
    loader = Loader(runtime, environment)
    own = loader.release(runtime.release)
    settings = loader.own.gateway
    patience = read_store_settings(environment).valkey_deadline
    store = ValkeyClient(runtime.valkey_url, deadline=patience)
    spool = SpoolWriter(runtime.spool)
    counters = Counters(store)
    worker_state = WorkerState(
        loader.own,
        Releases(own, loader),
        ExactCache(store),
        Limits(counters),
        RouteQueues(runtime.run / "slots"),
        Idempotency(store, settings.idempotency),
        Recorder(spool, os.getpid(), counters),
    )
    return Parts(worker_state, find_dialects(), store, counters, spool, runtime)


class Loader:
    """Releases and flags, loaded for this environment. Releases share what they both need: a model
    that is the same in two of them has one set of connections, one breaker, one pool of keys."""

    def __init__(self, runtime: Runtime, environment: Mapping[str, str]) -> None:
        self._runtime = runtime
        self._environment = environment
        self.own = load_release(runtime.registry, runtime.release)
        self._bound: dict[bytes, Target] = {}
        self._secrets: tuple[SecretKey, ...] = ()
        self._wrong: list[str] = []
        self._unkeyed = False
        """A release was loaded since the secrets were taken, maybe under older ones."""

    def release(self, digest: str) -> LoadedRelease:
        own = digest == self._runtime.release
        release = self.own if own else load_release(self._runtime.registry, digest)
        if not own:
            self._require_pools(release)
        targets = {model.name: self._target(model) for model in reachable_models(release)}
        redact = load_redactor(release.ledger.redact, self._runtime.app)
        plans = compile_plans(release, digest, targets, redact)
        pinned = None
        if release.flags is not None:
            pinned = load_flags(release.flags.document, release.flags.hash)
        self._unkeyed = True
        return LoadedRelease(digest, plans, targets, pinned)

    def flags(self, document: FlagDocument) -> FlagEvaluator:
        return load_flags(document.body, document.hash)

    def let_go(self, targets: Iterable[Target]) -> None:
        gone = {id(target): target for target in targets}
        for target in gone.values():
            target.pool.close()
        self._bound = {key: one for key, one in self._bound.items() if id(one) not in gone}

    def _target(self, model: Model) -> Target:
        key = canonical_json(model)
        if key not in self._bound:
            self._bound[key] = bind_model(model, self._runtime, self._environment)
            self._key(self._bound[key])
        return self._bound[key]

    def take_secrets(self, secrets: tuple[SecretKey, ...]) -> list[str]:
        """Serve with the keys that ``secrets`` says, read anew from where they are kept; what of it
        cannot be done here. A model whose keys cannot be read goes on with those it has."""
        if secrets != self._secrets or self._wrong or self._unkeyed:
            self._secrets, self._unkeyed = secrets, False
            # A copy: a release that is loaded in its thread binds models meanwhile.
            told = [self._key(target) for target in list(self._bound.values())]
            self._wrong = list(dict.fromkeys(words for words in told if words is not None))
        return self._wrong

    def _key(self, target: Target) -> str | None:
        name = target.model.keys
        if name is None or target.pooled:
            return None
        plain = name.removeprefix("secret:")
        said = [one for one in self._secrets if one.secret == plain]
        if not said:
            return None
        try:
            keys = resolve(name, Path(self._runtime.state), self._environment).reveal()
            target.set_keys(settings_of(keys, said))
        except (TidegateError, OSError) as error:
            return f"the keys of secret {plain} cannot be taken here: {error}"
        missing = not_here(keys, said)
        return f"secret {plain} has no key {' and no key '.join(missing)} here" if missing else None

    def _require_pools(self, release: Release) -> None:
        """A pool serves the weights of the release that the gateway was started with."""
        for model in reachable_models(release):
            if model.provider == "local":
                ours = self.own.models.get(model.name)
                if ours is None or (ours.artifacts, ours.pool) != (model.artifacts, model.pool):
                    raise _no_pool(model, "as this release pins it")


def load_flags(document: str, hash_form: str) -> FlagEvaluator:
    """A flag document, ready to be asked; the library takes a moment to load, and only here."""
    from tidegate.switches import Flags, require_form

    require_form(hash_form)
    return Flags(document)


def bind_model(model: Model, runtime: Runtime, environment: Mapping[str, str]) -> Target:
    """Where a model is served in this environment, and with which key."""
    address = runtime.pools.get(model.name)
    if address is not None:
        return make_target(model, address.base_url, address.api_key, pooled=True)
    if model.provider == "local":
        raise _no_pool(model, "here")
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


def _no_pool(model: Model, how: str) -> ReleaseError:
    return ReleaseError(
        "pool_missing",
        f"no pool serves the local model {model.name!r} {how}",
        cure="start the app with tidegate up, which starts its pools",
    )
