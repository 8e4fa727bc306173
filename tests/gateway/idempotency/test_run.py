"""A key is held, waited for, given up; what it brought is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from tests.gateway.calls import ANSWER, chat_request, plans_of
from tests.gateway.loops import run, soon
from tidegate.base.errors import RequestError
from tidegate.gateway.idempotency import Idempotency, IdempotencyHold
from tidegate.gateway.idempotency import run as module
from tidegate.gateway.idempotency.run import IdempotencyStatistics
from tidegate.gateway.values import Answer
from tidegate.stores.valkey_client import ValkeyClient

PLAN = plans_of()["plain"]


async def hold(keys: Idempotency) -> IdempotencyHold:
    """The hold on the key "k" for a request that leads."""
    found = await keys.look(chat_request(PLAN), "k")
    assert isinstance(found, IdempotencyHold)
    return found


@asynccontextmanager
async def workers(url: str) -> AsyncIterator[tuple[Idempotency, Idempotency]]:
    """Two workers over one store."""
    clients = [ValkeyClient(url, deadline=0.5) for _ in range(2)]
    for client in clients:
        await client.start()
    try:
        yield Idempotency(clients[0], 60.0), Idempotency(clients[1], 60.0)
    finally:
        for client in clients:
            await client.stop()


def test_who_can_wait_no_longer_is_told(valkey_url: str) -> None:
    async def main() -> None:
        async with workers(valkey_url) as (one, two):
            first = await hold(one)
            with pytest.raises(RequestError) as told:
                await soon(two.look(chat_request(PLAN, seconds=0.1), "k"))
            assert (told.value.status, told.value.code) == (409, "idempotency_in_flight")
            assert told.value.retry_after == "1"
            first.leave()

    run(main())


def test_a_hold_is_renewed_while_its_request_runs_and_ends_with_it(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.6)

    async def main() -> None:
        async with workers(valkey_url) as (one, two):
            first = await hold(one)
            waiting = asyncio.create_task(two.look(chat_request(PLAN), "k"))
            await asyncio.sleep(1.5)
            assert not waiting.done()
            first.keep(ANSWER)
            first.leave()
            answer = await soon(waiting)
            assert isinstance(answer, Answer)
            assert answer.body == ANSWER.body
            assert answer.stored_at is not None
            assert one.statistics() == IdempotencyStatistics(held=0, kept=1, replayed=0)
            assert two.statistics() == IdempotencyStatistics(held=0, kept=0, replayed=1)

    run(main())


def test_a_hold_that_nobody_renews_runs_out(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.3)

    async def main() -> None:
        async with workers(valkey_url) as (one, two):
            dead = await hold(one)
            assert dead._timer is not None
            dead._timer.cancel()  # its worker was killed
            second = await soon(hold(two))
            dead.keep(ANSWER)  # too late: the key is another's
            await asyncio.sleep(0.05)
            second.leave()
            await asyncio.sleep(0.05)
            (await soon(hold(two))).leave()

    run(main())


def test_who_waits_leads_when_the_first_brings_nothing(valkey_url: str) -> None:
    async def main() -> None:
        async with workers(valkey_url) as (one, two):
            first = await hold(one)
            waiting = [asyncio.create_task(two.look(chat_request(PLAN), "k")) for _ in range(5)]
            await asyncio.sleep(0.05)
            first.leave()
            await asyncio.sleep(0.3)
            assert sum(task.done() for task in waiting) == 1, "one at a time"
            leader = next(task.result() for task in waiting if task.done())
            assert isinstance(leader, IdempotencyHold)
            leader.keep(ANSWER)
            leader.leave()
            answers = await soon(asyncio.gather(*waiting))
            assert sum(isinstance(answer, Answer) for answer in answers) == 4

    run(main())


def test_an_answer_too_large_to_keep_is_not_made_twice(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LARGEST", 1000)

    async def main() -> None:
        async with workers(valkey_url) as (one, two):
            first = await hold(one)
            first.keep(msgspec.structs.replace(ANSWER, body=b"x" * 2000))
            first.leave()
            await asyncio.sleep(0.05)
            told = await two.look(chat_request(PLAN), "k")
            assert isinstance(told, RequestError)
            assert told.code == "idempotency_answer_not_kept"

    run(main())


def test_a_request_that_is_cancelled_while_it_asks_holds_nothing(valkey_url: str) -> None:
    async def main() -> None:
        async with workers(valkey_url) as (one, two):
            task = asyncio.create_task(one.look(chat_request(PLAN), "k"))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.sleep(0.05)
            (await soon(hold(two), 1)).leave()

    run(main())
