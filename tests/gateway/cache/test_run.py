"""Identical calls are asked once and answered all; Valkey may come and go."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.gateway.calls import ANSWER, CHAT, chat_request, plans_of
from tests.gateway.loops import run, soon, until
from tidegate.gateway.cache import ExactCache, near
from tidegate.gateway.cache.key import cache_key
from tidegate.gateway.cache.rules import may_keep
from tidegate.gateway.cache.run import CacheStatistics, Lookup
from tidegate.gateway.plan import Plan
from tidegate.gateway.values import Answer, Request
from tidegate.stores.open import running
from tidegate.stores.valkey import valkey_spec, valkey_url
from tidegate.stores.valkey_client import ValkeyClient


@pytest.fixture(autouse=True)
def _far_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker remembers by itself for a second would hide the store."""
    monkeypatch.setattr(near, "SECONDS", 0.0)


PLAN = plans_of()["plan"]
UNCACHED = plans_of()["plain"]
WAIT = 0.5
"""Deadline of the store's commands here: a loaded machine is not an absent Valkey."""


def with_route(**changes: Any) -> Plan:
    return msgspec.structs.replace(PLAN, route=msgspec.structs.replace(PLAN.route, **changes))


@asynccontextmanager
async def workers(
    url: str, count: int = 1, deadline: float = WAIT
) -> AsyncIterator[list[ExactCache]]:
    """The caches of ``count`` workers over one Valkey."""
    clients = [ValkeyClient(url, deadline=deadline) for _ in range(count)]
    for client in clients:
        await client.start()
    try:
        yield [ExactCache(client) for client in clients]
    finally:
        for client in clients:
            await client.stop()


class Asked:
    """One request, and how the cache answered it."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.cache: str | None = None


def ask(plan: Plan = PLAN, **more: Any) -> Asked:
    return Asked(chat_request(plan, **more))


async def look(cache: ExactCache, asked: Asked, control: str | None = None) -> Lookup:
    """As the path does: at hand first, then wherever it is."""
    near = cache.at_hand(asked.request, asked.request.ask, control)
    found = near if near.answer is not None else await cache.look(asked.request, near)
    asked.cache = found.result
    return found


class Upstream:
    """The calls that were made because the cache had no answer."""

    def __init__(self, seconds: float = 0.05, answer: Answer | None = ANSWER) -> None:
        self.asked = 0
        self.seconds = seconds
        self.answer = answer

    async def serve(
        self, cache: ExactCache, asked: Asked, control: str | None = None
    ) -> Answer | None:
        """What the path does around the cache."""
        found = await look(cache, asked, control)
        flight, ttl = found.flight, asked.request.plan.route.cache_ttl
        if found.answer is not None:
            return found.answer
        try:
            self.asked += 1
            await asyncio.sleep(self.seconds)
            if flight is not None and self.answer is not None:
                assert ttl is not None
                cache.keep(flight, self.answer, ttl)
            return self.answer
        finally:
            if flight is not None:
                cache.leave(flight)


def test_a_miss_then_a_hit(valkey_url: str) -> None:
    async def main() -> None:
        async with workers(valkey_url, 2) as (one, two):
            upstream = Upstream(0)
            first, second, third = (ask() for _ in range(3))
            assert await upstream.serve(one, first) == ANSWER
            kept = await upstream.serve(one, second)
            assert kept is not None
            assert kept.stored_at is not None
            assert (kept.body, kept.model, kept.finish) == (b'{"choices":[]}', "small", "stop")
            assert await upstream.serve(two, third) == kept, "workers share what is kept"
            assert [c.cache for c in (first, second, third)] == ["miss", "hit", "hit"]
            assert upstream.asked == 1
            assert one.statistics() == CacheStatistics(hits=1, misses=1, shared=0, flights=0)

    run(main())


def test_what_is_kept_goes_when_its_time_is_over(valkey_url: str) -> None:
    plan = with_route(cache_ttl=0.05)

    async def main() -> None:
        async with workers(valkey_url) as (cache,):
            upstream = Upstream(0)
            await upstream.serve(cache, ask(plan))
            await asyncio.sleep(0.1)
            late = ask(plan)
            await upstream.serve(cache, late)
            assert (late.cache, upstream.asked) == ("miss", 2)

    run(main())


def test_tenants_and_forms_share_nothing(valkey_url: str) -> None:
    async def main() -> None:
        async with workers(valkey_url) as (cache,):
            upstream = Upstream(0)
            calls = [ask(), ask(tenant="other"), ask(tenant=None), ask(stream=True)]
            calls.append(ask(stream=True, stream_options={"include_usage": True}))
            for call in calls:
                await upstream.serve(cache, call)
            assert [call.cache for call in calls] == ["miss"] * 5

    run(main())


def test_routes_without_a_cache_and_fresh_answers_pass_by(valkey_url: str) -> None:
    async def main() -> None:
        async with workers(valkey_url) as (cache,):
            upstream = Upstream(0)
            off, warm, told = ask(UNCACHED), ask(temperature=1), ask()
            await upstream.serve(cache, off)
            await upstream.serve(cache, warm)
            await upstream.serve(cache, told, "no-cache")
            assert [c.cache for c in (off, warm, told)] == ["off", "bypass", "bypass"]
            assert cache.statistics() == CacheStatistics(0, 0, 0, 0)

    run(main())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_identical_calls_are_asked_once(valkey_url: str, count: int) -> None:
    """N identical calls, spread over the workers: one leader, the others get its answer."""

    async def main() -> None:
        async with workers(valkey_url, count) as caches:
            upstream = Upstream(0.1)
            calls = [ask() for _ in range(20)]
            answers = await soon(
                asyncio.gather(
                    *(upstream.serve(caches[n % count], call) for n, call in enumerate(calls))
                )
            )
            assert upstream.asked == 1
            assert {answer.body for answer in answers if answer} == {ANSWER.body}
            results = [call.cache for call in calls]
            assert results.count("miss") == 1
            assert set(results) <= {"miss", "shared", "hit"}
            assert results.count("shared") == 20 - count, "waiting in a worker asks Valkey nothing"
            assert all(cache.statistics().flights == 0 for cache in caches)

    run(main())


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("how", ["no answer", "must not be kept", "cancelled"])
def test_a_leader_that_brings_nothing_lets_the_others_go_on(
    valkey_url: str, count: int, how: str
) -> None:
    async def main() -> None:
        async with workers(valkey_url, count) as caches:
            unkept = msgspec.structs.replace(ANSWER, complete=False, finish="length")
            leader = Upstream(0.1, None if how == "no answer" else unkept)
            led = asyncio.create_task(leader.serve(caches[0], ask()))
            await until(lambda: leader.asked)
            others, calls = Upstream(0), [ask() for _ in range(3)]
            waiting = [asyncio.create_task(others.serve(caches[-1], call)) for call in calls]
            await asyncio.sleep(0.03)
            if how == "cancelled":
                led.cancel()
            answers = await soon(asyncio.gather(*waiting), 1)
            assert answers == [ANSWER] * 3
            assert "miss" in {call.cache for call in calls} <= {"miss", "shared"}
            await asyncio.gather(led, return_exceptions=True)
            assert all(cache.statistics().flights == 0 for cache in caches)

    run(main())


def test_a_worker_that_died_does_not_hold_the_others_to_their_end(valkey_url: str) -> None:
    async def main() -> None:
        async with workers(valkey_url, 2) as (dead, alive):
            flight = (await look(dead, ask())).flight
            assert flight is not None  # and nothing is heard of it any more
            upstream, call = Upstream(0), ask(seconds=2.0)
            assert await upstream.serve(alive, call) == ANSWER
            left = call.request.deadline - asyncio.get_running_loop().time()
            assert left > 0.5, "there must be time left for a call of its own"
            dead.leave(flight)

    run(main())


def test_a_request_that_stops_waiting_for_valkey_gives_its_lease_back(valkey_url: str) -> None:
    async def main() -> None:
        async with workers(valkey_url, 2) as (one, two):
            task = asyncio.create_task(look(one, ask()))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.sleep(0.05)
            found = await soon(look(two, ask()), 1)
            flight = found.flight
            assert found.answer is None
            assert flight is not None
            assert flight.lease is not None, "the key was free"
            two.leave(flight)

    run(main())


def test_an_entry_of_another_version_is_a_miss_and_is_replaced(valkey_url: str) -> None:
    async def main() -> None:
        client = ValkeyClient(valkey_url, deadline=WAIT)
        await client.start()
        fields, form = chat_request(PLAN).ask.fields, "openai-chat whole"
        key = b"tg:x:" + cache_key("acme", PLAN.fingerprint, fields, form, CHAT.inert)
        for junk in (b"E", b"E\xc1garbage", b"E\x81\xa1x\x01", b"", b"Z9"):
            await client.call(b"SET", key, junk)
            cache, upstream = ExactCache(client), Upstream(0)
            first, second = ask(), ask()
            assert await upstream.serve(cache, first) == ANSWER
            assert await upstream.serve(cache, second) is not None
            assert [first.cache, second.cache] == ["miss", "hit"]
        await client.stop()

    run(main())


@pytest.mark.parametrize("entry_age", [0.0, 2.0])
def test_a_worker_remembers_for_a_second_what_was_asked_again(
    valkey_url: str, entry_age: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near, "SECONDS", 1.0)

    async def main() -> None:
        async with workers(valkey_url) as (cache,):
            upstream = Upstream(0)
            await upstream.serve(cache, ask())
            assert len(cache._near) == 0, "what is asked once takes no memory"
            await upstream.serve(cache, ask())
            commands = cache._leases._store.statistics().commands
            monkeypatch.setattr(cache, "_near", Aged(cache._near, entry_age))
            assert await upstream.serve(cache, ask()) is not None
            asked = cache._leases._store.statistics().commands - commands
            assert asked == (0 if entry_age < 1 else 1)

    run(main())


class Aged:
    """A near cache read some seconds later."""

    def __init__(self, real: near.NearCache, seconds: float) -> None:
        self._real, self._seconds = real, seconds
        self.put = real.put

    def get(self, key: bytes, now: float) -> Answer | None:
        return self._real.get(key, now + self._seconds)


def test_the_near_cache_is_bounded() -> None:
    small = near.NearCache(most_bytes=1000)
    for n in range(100):
        small.put(b"%d" % n, msgspec.structs.replace(ANSWER, body=b"x" * 100), 0.0, 60)
    small.put(b"99", msgspec.structs.replace(ANSWER, body=b"x" * 50), 0.0, 60)
    assert len(small) <= 10


def test_an_answer_too_large_is_not_kept_and_its_lease_ends(valkey_url: str) -> None:
    async def main() -> None:
        async with workers(valkey_url, 2) as caches:
            upstream = Upstream(0, msgspec.structs.replace(ANSWER, body=b"x" * (2 << 20)))
            for cache in caches:
                call = ask()
                await soon(upstream.serve(cache, call), 1)
                assert call.cache == "miss"
                await asyncio.sleep(0.05)

    run(main())


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, True),
        ({"finish": None}, True),
        ({"complete": False, "finish": "length"}, False),
        ({"complete": False, "finish": "content_filter"}, False),
        ({"tool_calls": True}, False),
    ],
)
def test_which_answers_may_be_kept(changes: dict[str, object], kept: bool) -> None:
    assert may_keep(msgspec.structs.replace(ANSWER, **changes)) is kept


# -- bad luck -------------------------------------------------------------------------------------


async def timed(upstream: Upstream, cache: ExactCache) -> tuple[str, float]:
    started, call = asyncio.get_running_loop().time(), ask()
    assert await upstream.serve(cache, call) == ANSWER
    return call.cache, asyncio.get_running_loop().time() - started


async def until_cached(cache: ExactCache) -> None:
    upstream = Upstream(0)
    async with asyncio.timeout(10):
        while True:
            call = ask()
            await upstream.serve(cache, call)
            if call.cache == "hit":
                return
            await asyncio.sleep(0.02)


def test_a_frozen_valkey_costs_little_and_is_found_again(app_folder: Path) -> None:
    async def main(pid: int, url: str) -> None:
        async with workers(url, deadline=0.05) as (cache,):
            await until_cached(cache)
            os.kill(pid, signal.SIGSTOP)
            try:
                upstream = Upstream(0)
                seen = [await timed(upstream, cache) for _ in range(30)]
                assert {result for result, _ in seen} == {"down"}
                assert sum(seconds for _, seconds in seen) < 2, "at most eight wait, 50 ms each"
                waited = [seconds for _, seconds in seen[10:]]
                assert statistics.median(waited) < 0.025, "then nobody waits"
            finally:
                os.kill(pid, signal.SIGCONT)
            await until_cached(cache)

    with running(valkey_spec(app_folder)) as child:
        run(main(child.pid, valkey_url(app_folder)))


def test_a_valkey_that_stops_and_returns_needs_no_restart_here(app_folder: Path) -> None:
    async def main() -> None:
        async with workers(valkey_url(app_folder)) as (cache,):
            upstream = Upstream(0)
            assert (await timed(upstream, cache))[0] == "down"
            with running(valkey_spec(app_folder)):
                await until_cached(cache)
            for _ in range(5):
                result, seconds = await timed(upstream, cache)
                assert result == "down"
                assert seconds < 2 * WAIT
            with running(valkey_spec(app_folder)):
                await until_cached(cache)

    run(main())


def test_while_valkey_is_away_identical_calls_of_a_worker_still_wait_for_one(
    app_folder: Path,
) -> None:
    async def main() -> None:
        async with workers(valkey_url(app_folder)) as (cache,):
            upstream, calls = Upstream(0.05), [ask() for _ in range(5)]
            await asyncio.gather(*(upstream.serve(cache, call) for call in calls))
            assert upstream.asked == 1
            assert sorted(call.cache for call in calls) == ["down"] + ["shared"] * 4

    run(main())


@pytest.mark.parametrize("found", [b"\x81\xa5model\xa1\xff", b"\x81\xa5model\xa1m", b"{}", b""])
def test_what_cannot_be_read_is_no_kept_answer(valkey_url: str, found: bytes) -> None:
    plan = with_route(stale=60.0)

    async def main() -> None:
        async with workers(valkey_url) as (cache,):
            request = chat_request(plan)
            known = cache.at_hand(request, request.ask, None)
            assert known.answer is None
            assert known.key is not None
            await cache._store.call(b"SET", b"tg:s:" + known.key, found)
            assert await cache.recall(request, known.key) is None

    run(main())
