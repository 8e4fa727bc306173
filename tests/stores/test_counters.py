"""Counters of limits on a real Valkey: against a model of them, under contention, over outages."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidegate.stores.counters import (
    Borrow,
    Counters,
    Granted,
    Refused,
    Settlement,
    read_counters,
)
from tidegate.stores.valkey_client import ValkeyClient

T = TypeVar("T")
LEASE, GRAIN = 10_000, 1000
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


def wish(name: str, amount: int, capacity: int, rate: float = 0.0, **more: int) -> Borrow:
    charge = bool(more.get("charge"))
    return Borrow(name.encode(), more.get("covers", 1), amount, charge, capacity, rate, TTL)


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
        st.tuples(st.just("borrow"), st.integers(0, 60), st.booleans()),
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
def test_whatever_is_borrowed_settled_and_forgotten_two_counters_are_as_their_model(
    valkey_url: str, steps: list[tuple[str, int, int]], rates: tuple[float, float]
) -> None:
    async def work(store: ValkeyClient) -> None:
        await store.call(b"FLUSHALL")
        counters = Counters(store)
        models = [Model(100, rates[0]), Model(150, rates[1])]
        names = [b"tg:l:a", b"tg:l:b"]
        now = START
        lent: list[tuple[int, bytes, int]] = []
        for kind, amount, more in steps:
            if kind == "wait":
                now += amount
                continue
            if kind == "borrow":
                wishes = [
                    Borrow(name, 1, amount, bool(more), model.capacity, model.rate, TTL)
                    for name, model in zip(names, models, strict=True)
                ]
                verdict = await counters.read(counters.borrow(wishes, LEASE, GRAIN, 1, now=now))
                fits = all(amount <= model.room(now) + 1e-6 for model in models)
                assert isinstance(verdict, Granted) == fits
                if not isinstance(verdict, Granted):
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
                    lent.append((amount, verdict.slot, end))
            elif lent:
                borrowed, slot, end = lent.pop(more % len(lent))
                counters.settle(
                    [
                        Settlement(name, borrowed, amount, model.rate, TTL)
                        for name, model in zip(names, models, strict=True)
                    ],
                    slot,
                    now=now,
                )
                await asyncio.sleep(0)  # settlements leave at the end of the turn
                for model in models:
                    model.drain(now)
                    if (end, borrowed) in model.leases:
                        model.leases.remove((end, borrowed))
                    model.used += amount
        # nothing is left of leases once they are over, and a whole bucket is a whole bucket
        now += LEASE + GRAIN + 1
        probe = [
            wish(n.decode(), 0, m.capacity, m.rate) for n, m in zip(names, models, strict=True)
        ]
        verdict = await counters.read(counters.borrow(probe, LEASE, GRAIN, 1, now=now))
        over = [model.room(now) < -1e-6 for model in models]
        assert isinstance(verdict, Refused) == any(over)
        if isinstance(verdict, Granted):
            for model, left in zip(models, verdict.left, strict=True):
                assert left == pytest.approx(model.room(now), abs=1)
            for state in (await read_counters(store, "tg:l:")).values():
                assert state.borrowed == 0

    with_store(valkey_url, work)


def test_a_thousand_at_once_through_several_clients_never_pass_the_cap(valkey_url: str) -> None:
    async def work(_: ValkeyClient) -> None:
        stores = [ValkeyClient(valkey_url, deadline=10.0) for _ in range(8)]
        for store in stores:
            await store.start()
        counters = [Counters(store) for store in stores]
        wishes = [wish("tg:l:cap", 7, 1000), wish("tg:l:rate", 1, 10_000, charge=1)]
        verdicts = await asyncio.gather(
            *(
                counters[n % 8].read(counters[n % 8].borrow(wishes, LEASE, GRAIN, 1))
                for n in range(1000)
            )
        )
        granted = [verdict for verdict in verdicts if isinstance(verdict, Granted)]
        assert len(granted) == 142, "142 times 7 is 994"
        states = await read_counters(stores[0], "tg:l:")
        assert states["tg:l:cap"].borrowed == 994
        assert states["tg:l:rate"].used == 142, "a refused one borrows from no counter"
        for n, verdict in enumerate(granted):
            counters[n % 8].settle([Settlement(b"tg:l:cap", 7, 3, 0.0, TTL)], verdict.slot)
        await asyncio.sleep(0.1)
        state = (await read_counters(stores[0], "tg:l:"))["tg:l:cap"]
        assert (state.used, state.borrowed) == (142 * 3, 0)
        for store in stores:
            await store.stop()

    with_store(valkey_url, work)


def test_a_counter_of_some_models_bars_only_those(valkey_url: str) -> None:
    async def work(store: ValkeyClient) -> None:
        counters = Counters(store)
        every = 0b11
        wishes = [
            wish("tg:l:first", 5, 4, covers=0b01),
            wish("tg:l:second", 5, 100, covers=0b10),
            wish("tg:l:both", 5, 100, covers=0b11),
        ]
        verdict = await counters.read(counters.borrow(wishes, LEASE, GRAIN, every))
        assert isinstance(verdict, Granted)
        assert (verdict.barred, list(verdict.left)) == (0b01, [-1, 95, 95])
        verdict = await counters.read(counters.borrow(wishes, LEASE, GRAIN, every, barred=0b10))
        assert verdict == Refused(0, 0, 0)
        assert (await read_counters(store, "tg:l:"))["tg:l:both"].borrowed == 5

    with_store(valkey_url, work)


def test_a_store_that_was_started_anew_learns_the_script_again(valkey_url: str) -> None:
    async def work(store: ValkeyClient) -> None:
        counters = Counters(store)
        wishes = [wish("tg:l:x", 5, 100)]
        await store.call(b"SCRIPT", b"FLUSH")
        verdict = await counters.read(counters.borrow(wishes, LEASE, GRAIN, 1))
        assert isinstance(verdict, Granted)
        await store.call(b"SCRIPT", b"FLUSH")
        counters.settle([Settlement(b"tg:l:x", 5, 2, 0.0, TTL)], verdict.slot)
        await asyncio.sleep(0.05)
        state = (await read_counters(store, "tg:l:"))["tg:l:x"]
        assert (state.used, state.borrowed) == (2, 0)

    with_store(valkey_url, work)


def test_what_is_settled_while_the_store_is_away_is_told_when_it_is_back(valkey_url: str) -> None:
    async def work(store: ValkeyClient) -> None:
        away = ValkeyClient(valkey_url, deadline=5.0)
        counters = Counters(away)
        counters.settle([Settlement(b"tg:l:x", 0, 7, 0.0, TTL)])
        await away.start()
        verdict = await counters.read(counters.borrow([wish("tg:l:x", 1, 10)], LEASE, GRAIN, 1))
        assert isinstance(verdict, Granted)
        assert list(verdict.left) == [2]
        await away.stop()

    with_store(valkey_url, work)


def test_counters_expire_by_themselves_and_empty_ones_are_gone(valkey_url: str) -> None:
    async def work(store: ValkeyClient) -> None:
        counters = Counters(store)
        wishes = [wish("tg:l:x", 5, 100), wish("tg:l:y", 1, 100, charge=1)]
        verdict = await counters.read(counters.borrow(wishes, LEASE, GRAIN, 1))
        assert isinstance(verdict, Granted)
        for name in (b"tg:l:x", b"tg:l:y"):
            assert 0 < await store.call(b"PTTL", name) <= TTL
        counters.settle([Settlement(b"tg:l:x", 5, 0, 0.0, TTL)], verdict.slot)
        await asyncio.sleep(0.05)
        assert await store.call(b"EXISTS", b"tg:l:x") == 0

    with_store(valkey_url, work)


def test_wishes_of_one_turn_share_a_command_and_each_is_judged_when_there_is_not_enough(
    valkey_url: str,
) -> None:
    async def work(store: ValkeyClient) -> None:
        counters = Counters(store)
        before = store.statistics().commands
        together = [counters.borrow([wish("one", 10, 100, 0.0)], LEASE, GRAIN, 1) for _ in range(8)]
        verdicts = [await counters.read(one) for one in together]
        assert all(isinstance(verdict, Granted) for verdict in verdicts)
        assert store.statistics().commands - before <= 2  # the script itself, the first time
        # 80 of 100 are lent: of five more that come at once, two fit
        late = [counters.borrow([wish("one", 10, 100, 0.0)], LEASE, GRAIN, 1) for _ in range(5)]
        kinds = [type(await counters.read(one)) for one in late]
        assert sorted(kind.__name__ for kind in kinds) == ["Granted"] * 2 + ["Refused"] * 3
        (state,) = (await read_counters(store, "")).values()
        assert state.borrowed == 100

    with_store(valkey_url, work)
