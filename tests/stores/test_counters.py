"""Counters of limits on a real Valkey: against a model of them, under contention, over outages."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidegate.stores.counters import Counters, read_counters
from tidegate.stores.reservations import (
    ReservationGranted,
    ReservationPart,
    ReservationRefused,
    ReservationTerms,
    Settlement,
)
from tidegate.stores.valkey_client import ValkeyClient, ValkeyDown

T = TypeVar("T")
LEASE, GRAIN = 10_000, 1000
TERMS = ReservationTerms(LEASE, GRAIN, 1)
START = 1_800_000_000_000
TTL = 3_600_000


def with_store(url: str, work: Callable[[ValkeyClient], Awaitable[T]]) -> T:
    async def run() -> T:
        store = ValkeyClient(url, deadline=5.0)
        await store.start()
        try:
            return await work(store)
        finally:
            await store.stop()

    return asyncio.run(run())


@contextlib.asynccontextmanager
async def clients(url: str, count: int) -> AsyncIterator[list[ValkeyClient]]:
    """As many workers have, each its own."""
    stores = [ValkeyClient(url, deadline=10.0) for _ in range(count)]
    for store in stores:
        await store.start()
    try:
        yield stores
    finally:
        for store in stores:
            await store.stop()


def part(name: str, amount: int, capacity: int, rate: float = 0.0, **more: int) -> ReservationPart:
    charge = bool(more.get("charge"))
    return ReservationPart(
        name.encode(), more.get("covers", 1), amount, charge, capacity, rate, TTL
    )


class Model:
    """What a counter is, in plain words: what was used, and leases with their ends."""

    def __init__(self, capacity: int, rate: float) -> None:
        self.capacity, self.rate = capacity, rate
        self.used, self.at = 0.0, START
        self.leases: list[tuple[int, int]] = []

    def drain(self, now: int) -> None:
        self.used = max(0.0, self.used - (now - self.at) * self.rate)
        self.at = now
        self.leases = [lease for lease in self.leases if lease[0] > now]

    def room(self, now: int) -> float:
        self.drain(now)
        return self.capacity - self.used - sum(amount for _, amount in self.leases)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 60), st.booleans()),
        st.tuples(st.just("settle"), st.integers(0, 80), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.integers(0, 15_000), st.just(0)),
    ),
    max_size=40,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=steps, rates=st.tuples(st.sampled_from([0.0, 0.01, 1 / 3]), st.just(0.0)))
def test_whatever_is_reserved_settled_and_forgotten_two_counters_are_as_their_model(
    valkey_url: str, steps: list[tuple[str, int, int]], rates: tuple[float, float]
) -> None:
    async def work(store: ValkeyClient) -> None:
        await store.call(b"FLUSHALL")
        counters = Counters(store)
        models = [Model(100, rates[0]), Model(150, rates[1])]
        names = [b"tg:l:a", b"tg:l:b"]
        now = START
        granted: list[tuple[int, ReservationGranted, int]] = []
        for kind, amount, more in steps:
            if kind == "wait":
                now += amount
                continue
            if kind == "reserve":
                parts = [
                    ReservationPart(name, 1, amount, bool(more), model.capacity, model.rate, TTL)
                    for name, model in zip(names, models, strict=True)
                ]
                verdict = await counters.outcome(
                    counters.reserve(parts, ReservationTerms(LEASE, GRAIN, 1, now=now))
                )
                fits = all(amount <= model.room(now) + 1e-6 for model in models)
                assert isinstance(verdict, ReservationGranted) == fits
                if not isinstance(verdict, ReservationGranted):
                    continue
                end = math.ceil((now + LEASE) / GRAIN) * GRAIN
                for model, left in zip(models, verdict.left, strict=True):
                    if more:
                        model.used += amount
                    else:
                        model.leases.append((end, amount))
                    assert left == pytest.approx(max(0, math.floor(model.room(now))), abs=1)
                if not more:
                    assert int(verdict.slot) == end
                    granted.append((amount, verdict, end))
            elif granted:
                reserved, grant, end = granted.pop(more % len(granted))
                counters.settle(
                    [
                        Settlement(name, reserved, amount, model.rate, TTL)
                        for name, model in zip(names, models, strict=True)
                    ],
                    grant,
                    now=now,
                )
                await asyncio.sleep(0)  # settlements leave at the end of the turn
                for model in models:
                    model.drain(now)
                    if (end, reserved) in model.leases:
                        model.leases.remove((end, reserved))
                    model.used += amount
        # nothing is left of leases once they are over, and a whole bucket is a whole bucket
        now += LEASE + GRAIN + 1
        probe = [
            part(n.decode(), 0, m.capacity, m.rate) for n, m in zip(names, models, strict=True)
        ]
        verdict = await counters.outcome(
            counters.reserve(probe, ReservationTerms(LEASE, GRAIN, 1, now=now))
        )
        over = [model.room(now) < -1e-6 for model in models]
        assert isinstance(verdict, ReservationRefused) == any(over)
        if isinstance(verdict, ReservationGranted):
            for model, left in zip(models, verdict.left, strict=True):
                assert left == pytest.approx(model.room(now), abs=1)
            for state in (await read_counters(store, "tg:l:")).values():
                assert state.reserved == 0

    with_store(valkey_url, work)


def test_a_thousand_at_once_through_several_clients_never_pass_the_cap(valkey_url: str) -> None:
    async def work(_: ValkeyClient) -> None:
        async with clients(valkey_url, 8) as stores:
            counters = [Counters(store) for store in stores]
            parts = [part("tg:l:cap", 7, 1000), part("tg:l:rate", 1, 10_000, charge=1)]
            verdicts = await asyncio.gather(
                *(
                    counters[n % 8].outcome(counters[n % 8].reserve(parts, TERMS))
                    for n in range(1000)
                )
            )
            granted = [verdict for verdict in verdicts if isinstance(verdict, ReservationGranted)]
            assert len(granted) == 142, "142 times 7 is 994"
            states = await read_counters(stores[0], "tg:l:")
            assert states["tg:l:cap"].reserved == 994
            assert states["tg:l:rate"].used == 142, "a refused one reserves on no counter"
            for n, verdict in enumerate(granted):
                counters[n % 8].settle([Settlement(b"tg:l:cap", 7, 3, 0.0, TTL)], verdict)
            await asyncio.sleep(0.1)
            state = (await read_counters(stores[0], "tg:l:"))["tg:l:cap"]
            assert (state.used, state.reserved) == (142 * 3, 0)

    with_store(valkey_url, work)


def test_a_counter_of_some_models_bars_only_those(valkey_url: str) -> None:
    async def work(store: ValkeyClient) -> None:
        counters = Counters(store)
        every = 0b11
        parts = [
            part("tg:l:first", 5, 4, covers=0b01),
            part("tg:l:second", 5, 100, covers=0b10),
            part("tg:l:both", 5, 100, covers=0b11),
        ]
        verdict = await counters.outcome(
            counters.reserve(parts, ReservationTerms(LEASE, GRAIN, every))
        )
        assert isinstance(verdict, ReservationGranted)
        assert (verdict.barred, list(verdict.left)) == (0b01, [-1, 95, 95])
        verdict = await counters.outcome(
            counters.reserve(parts, ReservationTerms(LEASE, GRAIN, every, barred=0b10))
        )
        assert verdict == ReservationRefused(0, 0, 0)
        assert (await read_counters(store, "tg:l:"))["tg:l:both"].reserved == 5

    with_store(valkey_url, work)


def test_a_store_that_was_started_anew_learns_the_script_again(valkey_url: str) -> None:
    async def work(store: ValkeyClient) -> None:
        counters = Counters(store)
        parts = [part("tg:l:x", 5, 100)]
        await store.call(b"SCRIPT", b"FLUSH")
        verdict = await counters.outcome(counters.reserve(parts, TERMS))
        assert isinstance(verdict, ReservationGranted)
        await store.call(b"SCRIPT", b"FLUSH")
        counters.settle([Settlement(b"tg:l:x", 5, 2, 0.0, TTL)], verdict)
        await asyncio.sleep(0.05)
        state = (await read_counters(store, "tg:l:"))["tg:l:x"]
        assert (state.used, state.reserved) == (2, 0)

    with_store(valkey_url, work)


def test_what_is_settled_while_the_store_is_away_is_told_when_it_is_back(valkey_url: str) -> None:
    async def work(store: ValkeyClient) -> None:
        away = ValkeyClient(valkey_url, deadline=5.0)
        counters = Counters(away)
        counters.settle([Settlement(b"tg:l:x", 0, 7, 0.0, TTL)])
        await away.start()
        verdict = await counters.outcome(counters.reserve([part("tg:l:x", 1, 10)], TERMS))
        assert isinstance(verdict, ReservationGranted)
        assert list(verdict.left) == [2]
        await away.stop()

    with_store(valkey_url, work)


def test_counters_expire_by_themselves_and_empty_ones_are_gone(valkey_url: str) -> None:
    async def work(store: ValkeyClient) -> None:
        counters = Counters(store)
        parts = [part("tg:l:x", 5, 100), part("tg:l:y", 1, 100, charge=1)]
        verdict = await counters.outcome(counters.reserve(parts, TERMS))
        assert isinstance(verdict, ReservationGranted)
        for name in (b"tg:l:x", b"tg:l:y"):
            assert 0 < await store.call(b"PTTL", name) <= TTL
        counters.settle([Settlement(b"tg:l:x", 5, 0, 0.0, TTL)], verdict)
        await asyncio.sleep(0.05)
        assert await store.call(b"EXISTS", b"tg:l:x") == 0

    with_store(valkey_url, work)


def test_parts_of_one_turn_share_a_command_and_each_is_judged_when_there_is_not_enough(
    valkey_url: str,
) -> None:
    async def work(store: ValkeyClient) -> None:
        counters = Counters(store)
        before = store.statistics().commands
        together = [counters.reserve([part("one", 10, 100, 0.0)], TERMS) for _ in range(8)]
        verdicts = [await counters.outcome(one) for one in together]
        assert all(isinstance(verdict, ReservationGranted) for verdict in verdicts)
        assert store.statistics().commands - before <= 2  # the script itself, the first time
        # 80 of 100 are granted: of five more that come at once, two fit
        late = [counters.reserve([part("one", 10, 100, 0.0)], TERMS) for _ in range(5)]
        kinds = [type(await counters.outcome(one)) for one in late]
        assert (
            sorted(kind.__name__ for kind in kinds)
            == ["ReservationGranted"] * 2 + ["ReservationRefused"] * 3
        )
        (state,) = (await read_counters(store, "")).values()
        assert state.reserved == 100

    with_store(valkey_url, work)


@contextlib.contextmanager
def nobody_listening_at(url: str) -> Iterator[None]:
    socket = Path(url.removeprefix("unix://"))
    away = socket.rename(socket.with_suffix(".away"))
    try:
        yield
    finally:
        away.rename(socket)


async def used(store: ValkeyClient, name: str) -> tuple[float, float]:
    state = (await read_counters(store, name))[name]
    return state.used, state.reserved


def test_where_much_is_left_requests_that_come_fast_share_commands(valkey_url: str) -> None:
    async def work(store: ValkeyClient) -> None:
        counters = Counters(store)
        parts = [part("tg:l:dollars", 100, 1 << 40), part("tg:l:calls", 1, 100_000, charge=1)]
        before = store.statistics().commands
        for n in range(1000):
            verdict = await counters.outcome(counters.reserve(parts, TERMS))
            assert isinstance(verdict, ReservationGranted)
            assert verdict.left[1] == 100_000 - n - 1, "exact, as nobody else asks"
            counters.settle([Settlement(b"tg:l:dollars", 100, 40, 0.0, TTL)], verdict)
        assert store.statistics().commands - before < 150
        await asyncio.sleep(0.4)  # what nobody took went back by itself
        assert await used(store, "tg:l:dollars") == (40_000, 0)
        assert await used(store, "tg:l:calls") == (1000, 0)

    with_store(valkey_url, work)


def test_a_worker_that_stops_returns_what_it_holds_and_tells_what_it_owes(valkey_url: str) -> None:
    async def work(store: ValkeyClient) -> None:
        counters = Counters(store)
        parts = [part("tg:l:x", 5, 1 << 40)]
        for _ in range(20):
            verdict = await counters.outcome(counters.reserve(parts, TERMS))
            assert isinstance(verdict, ReservationGranted)
            counters.settle([Settlement(b"tg:l:x", 5, 2, 0.0, TTL)], verdict)
        assert verdict.prefetched, "the last was handed out of a prefetch"
        await counters.stop()
        assert await used(store, "tg:l:x") == (40, 0)

    with_store(valkey_url, work)


def test_the_last_of_a_limit_is_given_to_the_unit_though_many_prefetch(valkey_url: str) -> None:
    async def work(_: ValkeyClient) -> None:
        async with clients(valkey_url, 4) as stores:
            workers = [Counters(store) for store in stores]
            parts = [part("tg:l:cap", 7, 20_003), part("tg:l:calls", 1, 1 << 30, charge=1)]
            granted = 0

            async def caller(counters: Counters) -> None:
                nonlocal granted
                refused = 0
                while refused < 5:  # one that is refused for what others hold asks again
                    verdict = await counters.outcome(counters.reserve(parts, TERMS))
                    if isinstance(verdict, ReservationRefused):
                        refused += 1
                        await asyncio.sleep(0.1)
                        continue
                    granted += 1
                    assert granted * 7 <= 20_003
                    await asyncio.sleep(0)
                    counters.settle([Settlement(b"tg:l:cap", 7, 7, 0.0, TTL)], verdict)

            await asyncio.gather(*(caller(workers[n % 4]) for n in range(64)))
            await asyncio.gather(*(counters.stop() for counters in workers))
            assert granted == 20_003 // 7
            assert await used(stores[0], "tg:l:cap") == (granted * 7, 0)
            assert await used(stores[0], "tg:l:calls") == (granted, 0)
            assert sum(store.statistics().commands for store in stores) < granted * 3

    with_store(valkey_url, work)


def test_what_was_prefetched_is_not_handed_out_once_the_store_is_away(valkey_url: str) -> None:
    async def work(store: ValkeyClient) -> None:
        away = ValkeyClient(valkey_url, deadline=5.0)
        await away.start()
        counters = Counters(away)
        parts = [part("tg:l:x", 1, 1 << 40)]
        for _ in range(20):
            verdict = await counters.outcome(counters.reserve(parts, TERMS))
            assert isinstance(verdict, ReservationGranted)
        assert verdict.prefetched
        with nobody_listening_at(valkey_url):
            await store.call(b"CLIENT", b"KILL", b"TYPE", b"normal", b"SKIPME", b"yes")
            await asyncio.sleep(0.02)
            assert not away.up
            with pytest.raises(ValkeyDown):
                await counters.outcome(counters.reserve(parts, TERMS))
        await away.stop()

    with_store(valkey_url, work)


async def heated(
    counters: Counters, parts: list[ReservationPart], terms: ReservationTerms = TERMS
) -> ReservationGranted:
    """Requests have come fast, and the last was handed out of a prefetch that holds more."""
    for _ in range(20):
        verdict = await counters.outcome(counters.reserve(parts, terms))
        assert isinstance(verdict, ReservationGranted)
    assert verdict.prefetched
    return verdict


def test_what_is_prefetched_under_one_release_is_not_handed_out_under_another(
    valkey_url: str,
) -> None:
    async def work(store: ValkeyClient) -> None:
        counters = Counters(store)
        large, small = [part("tg:l:x", 10, 1 << 40)], [part("tg:l:x", 10, 100)]
        other = ReservationTerms(LEASE, GRAIN, 1, limits="100/0/0")
        await heated(counters, large)
        for _ in range(50):
            assert isinstance(
                await counters.outcome(counters.reserve(small, other)), ReservationRefused
            )
            assert isinstance(
                await counters.outcome(counters.reserve(large, TERMS)), ReservationGranted
            )

    with_store(valkey_url, work)


def test_models_that_are_barred_stay_barred_in_what_is_handed_out(valkey_url: str) -> None:
    async def work(store: ValkeyClient) -> None:
        counters = Counters(store)
        parts = [part("tg:l:x", 1, 1 << 40, covers=0b11)]
        verdict = await heated(counters, parts, ReservationTerms(LEASE, GRAIN, 0b11, barred=0b10))
        assert verdict.barred == 0b10

    with_store(valkey_url, work)


def test_a_worker_may_have_all_that_is_left_though_it_has_prefetched(valkey_url: str) -> None:
    async def work(store: ValkeyClient) -> None:
        counters = Counters(store)
        verdict = await heated(counters, [part("tg:l:x", 10, 100_000)])
        rest = verdict.left[0]
        assert rest == 100_000 - 200
        verdict = await counters.outcome(counters.reserve([part("tg:l:x", rest, 100_000)], TERMS))
        assert isinstance(verdict, ReservationGranted)
        assert list(verdict.left) == [0]

    with_store(valkey_url, work)


def test_a_worker_that_stops_holds_no_more_than_its_requests_asked_for(valkey_url: str) -> None:
    async def work(store: ValkeyClient) -> None:
        counters = Counters(store)
        parts = [part("tg:l:x", 5, 1 << 40)]
        await heated(counters, parts)
        asked = 20 + 1
        while counters.reserve(parts, TERMS).reply is None:
            asked += 1
        await asyncio.sleep(0)  # the next filling is on its way
        await counters.stop()
        assert (await used(store, "tg:l:x")) == (0, asked * 5)

    with_store(valkey_url, work)


def test_what_was_prefetched_over_a_lost_connection_is_not_handed_out(valkey_url: str) -> None:
    async def work(store: ValkeyClient) -> None:
        client = ValkeyClient(valkey_url, deadline=5.0)
        await client.start()
        counters = Counters(client)
        parts = [part("tg:l:x", 1, 1 << 40)]
        await heated(counters, parts)
        await store.call(b"FLUSHALL")  # as a store that was started anew
        await store.call(b"CLIENT", b"KILL", b"TYPE", b"normal", b"SKIPME", b"yes")
        async with asyncio.timeout(5.0):
            for _ in range(1000):
                await asyncio.sleep(0.005)
                if client.up and client.connection == 1:
                    break
        assert isinstance(
            await counters.outcome(counters.reserve(parts, TERMS)), ReservationGranted
        )
        assert (await used(store, "tg:l:x"))[1] >= 1, "the store was asked"
        await client.stop()

    with_store(valkey_url, work)


def test_all_that_was_settled_in_a_long_outage_is_told(valkey_url: str) -> None:
    async def work(store: ValkeyClient) -> None:
        away = ValkeyClient(valkey_url)  # as impatient as in a gateway
        counters = Counters(away)
        for n in range(12_000):  # of 3,000 tenants
            counters.settle([Settlement(b"tg:l:%d" % (n % 3000), 0, 2, 0.0, TTL)])
            if n % 100 == 0:
                await asyncio.sleep(0)
        await away.start()
        counters.settle([Settlement(b"tg:l:0", 0, 1, 0.0, TTL)])
        await asyncio.sleep(0.5)
        states = await read_counters(store, "tg:l:")
        assert len(states) == 3000
        assert sum(state.used for state in states.values()) == 24_001
        assert away.statistics().reconnects == 0
        await away.stop()

    with_store(valkey_url, work)


def test_what_is_kept_in_an_outage_is_bounded_and_what_is_used_most_is_told(
    valkey_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(store: ValkeyClient) -> None:
        away = ValkeyClient(valkey_url, deadline=5.0)
        counters = Counters(away)
        app = Settlement(b"tg:l:app", 0, 1, 0.0, TTL)
        for n in range(12_000):
            counters.settle([app, Settlement(b"tg:l:%d" % n, 0, 1, 0.0, TTL)])
            if n % 100 == 0:
                await asyncio.sleep(0)
        await away.start()
        await counters.outcome(counters.reserve([part("tg:l:11999", 1, 100)], TERMS))
        assert await store.call(b"DBSIZE") <= 2000, "it is told bit by bit"
        await counters.stop()
        states = await read_counters(store, "tg:l:")
        assert len(states) == 10_000
        assert states["tg:l:app"].used == 12_000
        assert states["tg:l:11999"].used == 1
        await away.stop()

    with_store(valkey_url, work)
    words = [record.getMessage() for record in caplog.records if "forgotten" in record.message]
    assert len(words) == 2, "said once when it begins, and once how many"
    assert "2001 counters" in words[1]


def test_what_is_settled_in_the_moment_that_a_connection_ends_is_told_over_the_next(
    valkey_url: str,
) -> None:
    async def work(store: ValkeyClient) -> None:
        client = ValkeyClient(valkey_url, deadline=5.0)
        await client.start()
        counters = Counters(client)
        assert client._protocol is not None
        counters.settle([Settlement(b"tg:l:x", 0, 7, 0.0, TTL)])
        client._protocol.close("as a store that ends does")
        await asyncio.sleep(0.2)
        await counters.stop()
        assert await used(store, "tg:l:x") == (7, 0)
        await client.stop()

    with_store(valkey_url, work)
