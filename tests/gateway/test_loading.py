"""What is loaded, in force and let go of, step by step, without a gateway around it."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest

from tests.gateway.calls import CHAT, targets_of
from tests.gateway.loops import run, until
from tests.gateway.releases import sample_release
from tidegate.base.errors import ReleaseError
from tidegate.gateway.plan import FlagEvaluator, LoadedRelease, compile_plans
from tidegate.gateway.releases import Releases, user_of
from tidegate.gateway.targets import Target
from tidegate.gateway.values import Caller, Steering
from tidegate.switches import FlagDocument, SecretKey, Standing, SwitchSnapshot, Weight

OWN, OTHER, THIRD, BROKEN = "sha256:own", "sha256:other", "sha256:third", "sha256:broken"
HOOKED = "sha256:hooked"
RELEASE = sample_release("http://127.0.0.1:9/v1")


def loaded(digest: str) -> LoadedRelease:
    targets = targets_of(RELEASE)
    return LoadedRelease(digest, compile_plans(RELEASE, digest, targets), targets)


class Shelf:
    """A loader whose loads wait for ``open``."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.asked: list[str] = []
        self.gone: list[Target] = []

    def release(self, digest: str) -> LoadedRelease:
        self.asked.append(digest)
        assert self.open.wait(10)
        if digest == BROKEN:
            raise ReleaseError("release_unknown", "it is not there", cure="build it")
        if digest == HOOKED:
            raise SyntaxError("a hook of the app that is no Python")
        return loaded(digest)

    def flags(self, document: FlagDocument) -> FlagEvaluator:
        raise ReleaseError("flag_hash_changed", "hashed otherwise", cure="set them again")

    def take_secrets(self, secrets: tuple[SecretKey, ...]) -> list[str]:
        return []

    def let_go(self, targets: Iterable[Target]) -> None:
        self.gone += targets


@asynccontextmanager
async def working() -> AsyncIterator[tuple[Releases, Shelf]]:
    shelf = Shelf()
    releases = Releases(loaded(OWN), shelf)
    work = asyncio.create_task(releases.work())
    try:
        yield releases, shelf
    finally:
        shelf.open.set()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


def snapshot(version: int, *releases: str) -> SwitchSnapshot:
    """All requests of route ``plain`` to the last of ``releases``."""
    shares = [0] * (len(releases) - 1) + [100]
    weights = zip(releases, shares, strict=False)
    return SwitchSnapshot(
        version=version,
        traffic=tuple(Weight(route="plain", release=one, weight=share) for one, share in weights),
    )


async def error_of(releases: Releases, version: int) -> str | None:
    """What of ``version`` is not in force, once the rest is."""
    await until(lambda: (releases.standing() or Standing(version=-1)).version == version)
    now = releases.standing()
    return now and now.error


def steer(releases: Releases) -> Steering:
    """What serves a request for route ``plain``."""
    client = CHAT.parse(b'{"model": "plain"}')
    return releases.steer(releases.routes["plain"], client, Caller(None, "acme"), None, "0" * 32)


def serves(releases: Releases) -> str:
    steering = steer(releases)
    digest = steering.release.digest
    assert steering.plan.release == digest
    releases.leave(steering.release)
    return digest


def test_what_needs_no_loading_is_in_force_at_once() -> None:
    async def main() -> None:
        async with working() as (releases, shelf):
            assert releases.standing() is None
            releases.take(SwitchSnapshot(version=3))
            now = releases.standing()
            assert now is not None
            assert (now.version, now.error) == (3, None)
            assert shelf.asked == []

    run(main())


def test_the_old_weights_hold_until_the_new_release_is_there() -> None:
    async def main() -> None:
        async with working() as (releases, shelf):
            releases.take(SwitchSnapshot(version=1))
            shelf.open.clear()
            releases.take(snapshot(2, OWN, OTHER))
            await asyncio.sleep(0.05)
            assert serves(releases) == OWN
            now = releases.standing()
            assert now is not None
            assert now.version == 1
            shelf.open.set()
            assert await error_of(releases, 2) is None
            assert serves(releases) == OTHER

    run(main())


def test_a_change_that_comes_while_another_loads_is_the_one_in_force() -> None:
    async def main() -> None:
        async with working() as (releases, shelf):
            shelf.open.clear()
            releases.take(snapshot(1, OWN, OTHER))
            await asyncio.sleep(0.05)
            releases.take(snapshot(2, OWN, THIRD))
            shelf.open.set()
            assert await error_of(releases, 2) is None
            assert serves(releases) == THIRD
            await until(lambda: OTHER not in releases.running())

    run(main())


def test_a_release_is_freed_when_its_last_request_is_over() -> None:
    async def main() -> None:
        async with working() as (releases, shelf):
            releases.take(snapshot(1, OWN, OTHER))
            await error_of(releases, 1)
            steering = steer(releases)
            held = weakref.ref(steering.release)
            releases.take(SwitchSnapshot(version=2))
            await error_of(releases, 2)
            await asyncio.sleep(0.05)
            assert releases.running() == {OWN: 0, OTHER: 1}
            assert shelf.gone == []
            releases.leave(steering.release)
            await until(lambda: OTHER not in releases.running())
            assert {target.model.name for target in shelf.gone} == set(RELEASE.models)
            del steering
            shelf.gone.clear()
            gc.collect()
            assert held() is None

    run(main())


def test_what_fails_is_told_and_the_stable_release_stands_in() -> None:
    async def main() -> None:
        async with working() as (releases, _):
            releases.take(snapshot(1, OTHER, BROKEN))
            error = await error_of(releases, 1)
            assert error is not None
            assert "release sha256:broken cannot be loaded here: it is not there" in error
            assert serves(releases) == OTHER
            releases.take(snapshot(2, BROKEN))
            await error_of(releases, 2)
            assert serves(releases) == OWN
            document = FlagDocument(number=1, body="{}", hash="raw")
            releases.take(SwitchSnapshot(version=3, flags=document))
            assert "the flags cannot be evaluated here" in str(await error_of(releases, 3))
            releases.take(SwitchSnapshot(version=4))
            assert await error_of(releases, 4) is None

    run(main())


def test_a_release_whose_hook_breaks_stops_no_later_change() -> None:
    async def main() -> None:
        async with working() as (releases, _):
            releases.take(snapshot(1, OWN, HOOKED))
            assert "SyntaxError: a hook of the app" in str(await error_of(releases, 1))
            releases.take(snapshot(2, OWN, OTHER))
            assert await error_of(releases, 2) is None
            assert serves(releases) == OTHER

    run(main())


def test_what_failed_is_tried_again_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.gateway.releases.RETRY", 0.05)

    async def main() -> None:
        async with working() as (releases, shelf):
            releases.take(snapshot(1, OWN, BROKEN))
            await error_of(releases, 1)
            await until(lambda: shelf.asked.count(BROKEN) >= 3)

    run(main())


@pytest.mark.parametrize(
    ("body", "user"),
    [
        (b'{"user": "a"}', "a"),
        (b'{"user": "a", "safety_identifier": "b"}', "b"),
        (b'{"user": "a", "tidegate": {"user": "c"}}', "c"),
        (b'{"user": ""}', None),
        (b'{"user": 7}', None),
        (b'{"user": 1e999999}', None),
        (b"{}", None),
    ],
)
def test_who_asks(body: bytes, user: str | None) -> None:
    whole = body.decode().replace("{", '{"model": "plain", ', 1).replace(", }", "}")
    assert user_of(CHAT.parse(whole.encode())) == user
