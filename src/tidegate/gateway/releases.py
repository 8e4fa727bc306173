"""The releases that a worker serves, loaded and let go while it serves.

A request is steered twice: the weights choose its release, the flag of the route its variant there.
What a switch wants is loaded beside the requests, and in force at once when all of it is there. A
release that no weight names any more is let go when its last request has ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec

from tidegate.base import TidegateError
from tidegate.gateway.plan import FlagEvaluator, LoadedRelease, Plan
from tidegate.gateway.ports import ClientRequest
from tidegate.gateway.targets import Target
from tidegate.gateway.values import Caller, Steering
from tidegate.switches import (
    EVERY,
    FlagDocument,
    SecretKey,
    Split,
    Standing,
    SwitchSnapshot,
    Weight,
    pick,
    split_of,
)

log = logging.getLogger("tidegate.gateway")

RETRY = 5.0
"""Seconds until what could not be loaded is tried again."""


class ReleaseLoader(Protocol):
    """How a worker comes by what a switch names. The first two run beside the requests, in a
    thread, one at a time; both raise TidegateError with what is missing."""

    def release(self, digest: str) -> LoadedRelease: ...

    def flags(self, document: FlagDocument) -> FlagEvaluator: ...

    def take_secrets(self, secrets: tuple[SecretKey, ...]) -> list[str]:
        """Serve with these keys; what of that cannot be done here."""
        ...

    def let_go(self, targets: Iterable[Target]) -> None:
        """No release needs these any more."""
        ...


class Releases:
    """What is loaded, which of it serves whom, and how far the last snapshot is in force."""

    def __init__(self, own: LoadedRelease, loader: ReleaseLoader) -> None:
        self.own = own
        """The release that the gateway was started with; it is never let go."""
        self.routes: Mapping[str, Plan] = own.plans
        """Every name that a request may ask for, to a plan that serves it."""
        self._loader = loader
        self._loaded = {own.digest: own}
        self._splits: dict[str, Split] = {}
        self._flags: tuple[FlagDocument, FlagEvaluator] | None = None
        self._wanted = SwitchSnapshot(version=0)
        self._failed: dict[str, str] = {}
        self._standing: Standing | None = None
        self._work = asyncio.Event()
        self.settled = asyncio.Event()
        """A snapshot is in force: before that every request is served by the own release."""

    # -- each request -------------------------------------------------------------------------

    def steer(
        self, plan: Plan, client: ClientRequest, caller: Caller, journey: str | None, id: str
    ) -> Steering:
        """Release and variant of a request that asked for the route of ``plan``. The release is
        held until ``leave``."""
        release = self._loaded[plan.release]
        if self._splits:
            name = plan.route.name
            split = self._splits.get(name) or self._splits.get(EVERY)
            if split is not None:
                user = user_of(client)
                point = id if user is None else f"{caller.tenant or ''}/{user}"
                other = self._loaded[pick(split, point)]
                found = other.plans.get(name)
                if found is not None and found.route.kind == plan.route.kind:
                    release, plan = other, found
        steering = Steering(release, plan)
        if plan.route.flag is not None:
            steering = self._vary(steering, plan.route.flag, client, caller, journey)
        release.running += 1
        return steering

    def _vary(
        self,
        steering: Steering,
        flag: str,
        client: ClientRequest,
        caller: Caller,
        journey: str | None,
    ) -> Steering:
        release, plan = steering.release, steering.plan
        flags = release.flags if self._flags is None else self._flags[1]
        if flags is None:
            return Steering(release, plan, None, "ERROR")
        about = dict(client.extension.context)
        about |= {
            "tenant": caller.tenant or "",
            "key": caller.key_id or "",
            "route": plan.route.name,
            "journey": journey or "",
            "release": release.digest,
        }
        found = flags.resolve(flag, user_of(client) or caller.tenant or caller.key_id, about)
        varied = plan.variants.get(found.variant or "", plan)
        return Steering(release, varied, found.variant, found.reason)

    def leave(self, release: LoadedRelease) -> None:
        """A request that it served is over."""
        release.running -= 1
        if not release.running and release is not self.own and self._useless(release):
            self._work.set()

    # -- each change --------------------------------------------------------------------------

    def take(self, snapshot: SwitchSnapshot) -> None:
        """Weights and flags of ``snapshot`` are in force at once where nothing must be loaded."""
        self._wanted = snapshot
        if not self._missing() and self._has_flags():
            self._apply({})
        self._work.set()

    def standing(self) -> Standing | None:
        """The newest snapshot that is in force here, and what of it is not."""
        return self._standing

    def running(self) -> dict[str, int]:
        """Digest of each loaded release to the requests that it serves."""
        return {digest: release.running for digest, release in self._loaded.items()}

    def targets(self) -> list[Target]:
        """Of all loaded releases, each once."""
        every = (target for one in self._loaded.values() for target in one.targets.values())
        return list({id(target): target for target in every}.values())

    async def work(self) -> None:
        """Load what is wanted, let go of what is not; until cancelled."""
        while True:
            try:
                async with asyncio.timeout(RETRY if self._failed else None):
                    await self._work.wait()
            except TimeoutError:
                log.info("what could not be loaded is tried again")
            self._work.clear()
            await self._load()
            self._let_go()

    async def _load(self) -> None:
        failed: dict[str, str] = {}
        while waiting := [digest for digest in self._missing() if digest not in failed]:
            try:
                found = await asyncio.to_thread(self._loader.release, waiting[0])
                self._loaded[waiting[0]] = found
                log.info("release %s is loaded", waiting[0])
            except (TidegateError, OSError) as error:
                failed[waiting[0]] = f"release {waiting[0][:19]} cannot be loaded here: {error}"
            except Exception as error:
                # The edge to plug-ins and hooks of an app: no later change may wait for them.
                log.exception("release %s cannot be loaded", waiting[0])
                words = f"{type(error).__name__}: {error}"
                failed[waiting[0]] = f"release {waiting[0][:19]} cannot be loaded here: {words}"
        while not self._has_flags() and (document := self._wanted.flags) is not None:
            try:
                flags = await asyncio.to_thread(self._loader.flags, document)
                self._flags = document, flags
            except (TidegateError, OSError) as error:
                failed["flags"] = f"the flags cannot be evaluated here: {error}"
                break
        told = self._standing
        wanted = (self._wanted.history, self._wanted.version)
        if told and (told.history, told.version) == wanted and failed == self._failed:
            return
        if self._missing() <= failed.keys():
            self._apply(failed)
        else:  # another snapshot came while the last of this one was loaded
            self._work.set()

    def _missing(self) -> set[str]:
        return {one.release for one in self._wanted.traffic} - self._loaded.keys()

    def _has_flags(self) -> bool:
        wanted = self._wanted.flags
        return wanted is None or (self._flags is not None and self._flags[0] == wanted)

    def _apply(self, failed: dict[str, str]) -> None:
        """Put the wanted snapshot in force: nothing here waits, so no request sees half of it."""
        wanted = self._wanted
        if wanted.flags is None:
            self._flags = None
        by_route: dict[str, list[Weight]] = {}
        for one in wanted.traffic:
            by_route.setdefault(one.route, []).append(one)
        self._splits = {route: self._split(weights) for route, weights in by_route.items()}
        routes: dict[str, Plan] = {}
        for route, split in self._splits.items():
            for digest in reversed(split.releases):
                plans = self._loaded[digest].plans
                routes |= (
                    plans if route == EVERY else {k: p for k, p in plans.items() if k == route}
                )
        self.routes = {**routes, **self.own.plans}
        self._failed = failed
        wrong = [
            *failed.values(),
            *self._wrong(by_route),
            *self._loader.take_secrets(wanted.secrets),
        ]
        for words in wrong:
            log.warning("degraded: %s", words)
        self._standing = Standing(
            version=wanted.version, error="; ".join(wrong) or None, history=wanted.history
        )
        self.settled.set()

    def _split(self, weights: list[Weight]) -> Split:
        """Who stands in for a release that is not here: the stable one, or the gateway's own."""
        stable = weights[0].release
        instead = stable if stable in self._loaded else self.own.digest
        here = (w if w.release in self._loaded else _given(w, instead) for w in weights)
        return split_of(list(here))

    def _wrong(self, by_route: dict[str, list[Weight]]) -> Iterable[str]:
        """What of the snapshot cannot be done, though everything was loaded."""
        for route, weights in by_route.items():
            for one in weights:
                release = self._loaded.get(one.release)
                if release is not None and route != EVERY and route not in release.plans:
                    yield f"release {one.release[:19]} has no route {route}"
        if self._flags is not None:
            serving = {self.own.digest, *(w.release for ws in by_route.values() for w in ws)}
            asked = {
                plan.route.flag: name
                for digest in serving & self._loaded.keys()
                for name, plan in self._loaded[digest].plans.items()
                if plan.route.flag is not None
            }
            for flag in sorted(asked.keys() - self._flags[1].names()):
                yield f"route {asked[flag]} asks for flag {flag}, which the document has not"

    def _useless(self, release: LoadedRelease) -> bool:
        in_force = {digest for split in self._splits.values() for digest in split.releases}
        wanted = {one.release for one in self._wanted.traffic}
        return release is not self.own and release.digest not in in_force | wanted

    def _let_go(self) -> None:
        for digest, release in list(self._loaded.items()):
            if not release.running and self._useless(release):
                del self._loaded[digest]
                kept = {id(target) for target in self.targets()}
                self._loader.let_go(t for t in release.targets.values() if id(t) not in kept)
                log.info("release %s is let go", digest)


def user_of(client: ClientRequest) -> str | None:
    """Who asks, or in which conversation: ``tidegate.user``, or what the API has for it."""
    return client.extension.user or client.ask.dialect.user(client.ask.fields)


def _given(weight: Weight, release: str) -> Weight:
    return msgspec.structs.replace(weight, release=release)
