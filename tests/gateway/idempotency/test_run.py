"""A key is held, waited for, given up; what it brought is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from tests.gateway.calls import ANSWER, chat_call, plans_of
from tests.gateway.loops import run, soon
from tidegate.base.errors import RequestError
from tidegate.gateway.idempotency import Idempotency
from tidegate.gateway.idempotency import run as module
from tidegate.gateway.idempotency.run import IdempotencyStatistics
from tidegate.stores.valkey_client import ValkeyClient

PLAN = plans_of()["plain"]


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
            first = chat_call(PLAN)
            assert await one.look(first, "k") is None
            with pytest.raises(RequestError) as told:
                await soon(two.look(chat_call(PLAN, seconds=0.1), "k"))
            assert (told.value.status, told.value.code) == (409, "idempotency_in_flight")
            assert told.value.retry_after == "1"
            first.again.leave()

    run(main())


def test_a_hold_is_renewed_while_its_request_runs_and_ends_with_it(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.6)

    async def main() -> None:
        async with workers(valkey_url) as (one, two):
            first, second = chat_call(PLAN), chat_call(PLAN)
            assert await one.look(first, "k") is None
            waiting = asyncio.create_task(two.look(second, "k"))
            await asyncio.sleep(1.5)
            assert not waiting.done()
            first.again.keep(ANSWER)
            first.again.leave()
            answer = await soon(waiting)
            assert answer is not None
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
            dead, second = chat_call(PLAN), chat_call(PLAN)
            assert await one.look(dead, "k") is None
            dead.again._timer.cancel()  # its worker was killed
            assert await soon(two.look(second, "k")) is None
            dead.again.keep(ANSWER)  # too late: the key is another's
            await asyncio.sleep(0.05)
            second.again.leave()
            await asyncio.sleep(0.05)
            third = chat_call(PLAN)
            assert await soon(two.look(third, "k")) is None
            third.again.leave()

    run(main())


def test_who_waits_leads_when_the_first_brings_nothing(valkey_url: str) -> None:
    async def main() -> None:
        async with workers(valkey_url) as (one, two):
            first = chat_call(PLAN)
            assert await one.look(first, "k") is None
            calls = [chat_call(PLAN) for _ in range(5)]
            waiting = [asyncio.create_task(two.look(call, "k")) for call in calls]
            await asyncio.sleep(0.05)
            first.again.leave()
            await asyncio.sleep(0.3)
            assert sum(task.done() for task in waiting) == 1, "one at a time"
            leader = next(call for call in calls if call.again is not None)
            leader.again.keep(ANSWER)
            leader.again.leave()
            answers = await soon(asyncio.gather(*waiting))
            assert sum(answer is not None for answer in answers) == 4

    run(main())


def test_an_answer_too_large_to_keep_is_not_made_twice(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LARGEST", 1000)

    async def main() -> None:
        async with workers(valkey_url) as (one, two):
            first = chat_call(PLAN)
            assert await one.look(first, "k") is None
            first.again.keep(msgspec.structs.replace(ANSWER, body=b"x" * 2000))
            first.again.leave()
            await asyncio.sleep(0.05)
            with pytest.raises(RequestError) as told:
                await two.look(chat_call(PLAN), "k")
            assert told.value.code == "idempotency_answer_not_kept"

    run(main())


def test_a_request_that_is_cancelled_while_it_asks_holds_nothing(valkey_url: str) -> None:
    async def main() -> None:
        async with workers(valkey_url) as (one, two):
            task = asyncio.create_task(one.look(chat_call(PLAN), "k"))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.sleep(0.05)
            call = chat_call(PLAN)
            assert await soon(two.look(call, "k"), 1) is None
            call.again.leave()

    run(main())
