"""Models asked with no client attached: as a route asks them, accounted to a purpose of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.gateway.app import read_spool
from tests.gateway.calls import CHAT
from tests.gateway.loops import run, until
from tests.gateway.releases import sample_release
from tidegate.base import RequestError, Runtime, write_runtime
from tidegate.gateway.boot import Parts, assemble
from tidegate.gateway.dialects.openai_embeddings import OpenAIEmbeddings
from tidegate.gateway.inside import ask
from tidegate.gateway.neutral import Conversation, Message, TextPart
from tidegate.gateway.values import Answer, TraceContext
from tidegate.ledger import Receipt
from tidegate.registry import put
from tidegate.release import Limit, Release, Retries
from tidegate.testing import ModelServer, Script

JUDGE = Conversation(
    messages=(
        Message("system", (TextPart("You judge answers."),)),
        Message("user", (TextPart("Is this safe?"),)),
    ),
    output_tokens=5,
)
SPENT = Limit(
    name="spent", per="app", unit="requests", amount=1.0, calendar="day", on_outage="closed"
)
"""No user gets past it here: its counters cannot be reached."""


class Worker:
    """A worker's state without a door, and without a store behind it."""

    def __init__(self, folder: Path, release: Release) -> None:
        state = folder / ".tidegate"
        self.runtime = Runtime(
            app=str(folder),
            state=str(state),
            pid=os.getpid(),
            release=put(state / "registry", release, lambda path: iter(())),
            database_url="unused",
            valkey_url=f"unix://{folder}/nothing.sock",
            gateway_url="unused",
            operator_url="unused",
            operator_token="unused",
        )
        write_runtime(self.runtime)
        self.parts: Parts = assemble(state, {})

    async def ask(self, route: str, seconds: float = 10.0, asked: Conversation = JUDGE) -> Answer:
        state = self.parts.state
        return await ask(
            state,
            state.releases.own,
            state.routes[route],
            CHAT.build(asked),
            seconds=seconds,
            purpose="eval",
            context=TraceContext("ab" * 16, "cd" * 8, "nightly"),
        )

    def receipts(self) -> list[Receipt]:
        self.parts.spool.close()
        return read_spool(self.runtime.spool)


def asked(
    folder: Path, server: ModelServer, work: Any, *, retries: int = 0, spare: str | None = None
) -> tuple[Any, Receipt, Worker]:
    """What came of ``work(worker)``, and the one receipt of it."""
    release = sample_release(
        server.base_url, spare or server.base_url, retries=Retries(most=retries, backoff=0.01)
    )
    release = msgspec.structs.replace(release, limits={"spent": SPENT})
    workers: list[Worker] = []

    async def main() -> Any:
        workers.append(Worker(folder, release))
        try:
            return await work(workers[0])
        except RequestError as error:
            return error
        finally:
            for target in workers[0].parts.state.releases.targets():
                target.pool.close()

    found = run(main())
    (receipt,) = workers[0].receipts()
    assert workers[0].parts.state.releases.own.running == 0
    return found, receipt, workers[0]


def text_of(answer: Answer) -> str:
    return str(msgspec.json.decode(answer.body)["choices"][0]["message"]["content"])


def test_an_answer_and_its_receipt(tmp_path: Path) -> None:
    with ModelServer(answer="it is safe") as server:
        answer, receipt, worker = asked(tmp_path, server, lambda one: one.ask("plain"))
        body = msgspec.json.decode(server.requests[0].body)
    assert text_of(answer) == "it is safe"
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert body["max_tokens"] == 5
    assert (receipt.purpose, receipt.outcome, receipt.route) == ("eval", "served", "plain")
    assert (receipt.trace, receipt.journey, receipt.release) == (
        "ab" * 16,
        "nightly",
        worker.runtime.release,
    )
    assert receipt.cost is not None
    assert receipt.cost > 0
    assert receipt.usage is not None
    assert receipt.cache == "off"


def test_a_users_cache_and_limits_are_not_touched(tmp_path: Path) -> None:
    with ModelServer(answer="x") as server:
        _, receipt, worker = asked(tmp_path, server, lambda one: one.ask("plan"))
    assert receipt.outcome == "served", "the app's limit is closed to users here"
    assert worker.parts.state.cache.statistics().misses == 0
    assert worker.parts.store.statistics().commands == 0


def test_it_is_asked_again_and_elsewhere_as_the_route_says(tmp_path: Path) -> None:
    with ModelServer(answer="spare speaks") as spare, ModelServer() as server:
        server.script = Script.of("status=503")
        answer, receipt, _ = asked(
            tmp_path, server, lambda one: one.ask("rescued"), retries=2, spare=spare.base_url
        )
        assert len(server.requests) == 3
    assert text_of(answer) == "spare speaks"
    assert [one.code for one in receipt.attempts] == ["upstream_error"] * 3 + [None]
    assert (receipt.model, receipt.served_by) == ("spare", "fallback")
    assert "tried again" in receipt.reasons["call"]


def test_a_slow_model_is_hedged(tmp_path: Path) -> None:
    with ModelServer(answer="quick") as spare, ModelServer(answer="slow", first_token=5) as server:
        answer, receipt, _ = asked(
            tmp_path, server, lambda one: one.ask("hedged"), spare=spare.base_url
        )
    assert text_of(answer) == "quick"
    assert [(one.model, one.code) for one in receipt.attempts] == [
        ("small", "hedge_lost"),
        ("spare", None),
    ]


def test_its_deadline_holds(tmp_path: Path) -> None:
    with ModelServer(first_token=30) as server:
        error, receipt, _ = asked(tmp_path, server, lambda one: one.ask("plain", 0.3))
    assert isinstance(error, RequestError)
    assert error.code == "upstream_total_timeout"
    assert (receipt.outcome, receipt.purpose, receipt.cost) == ("failed", "eval", None)


def test_an_answer_that_fails_the_route_s_check_is_told_and_billed(tmp_path: Path) -> None:
    with ModelServer(answer="no JSON") as server:
        error, receipt, _ = asked(tmp_path, server, lambda one: one.ask("shaped"))
    assert isinstance(error, RequestError)
    assert error.code == "output_invalid"
    (attempt,) = receipt.attempts
    assert attempt.code == "output_invalid"
    assert attempt.usage is not None
    assert receipt.cost is not None


def test_who_gives_up_leaves_a_receipt(tmp_path: Path) -> None:
    with ModelServer(first_token=30) as server:

        async def give_up(worker: Worker) -> str:
            task = asyncio.create_task(worker.ask("plain"))
            await until(lambda: server.requests)
            task.cancel()
            done: Coroutine[Any, Any, object] = asyncio.wait_for(
                asyncio.gather(task, return_exceptions=True), 5
            )
            await done
            return "left"

        _, receipt, _ = asked(tmp_path, server, give_up)
    assert (receipt.outcome, receipt.code) == ("client_gone", "client_gone")
    assert [one.code for one in receipt.attempts] == ["client_gone"]
    assert receipt.cost is None, "the model may bill it"


def test_vectors_too(tmp_path: Path) -> None:
    async def embed(worker: Worker) -> Answer:
        state = worker.parts.state
        request = OpenAIEmbeddings().build_inputs(["one", "two"])
        return await ask(
            state, state.releases.own, state.routes["embed"], request, seconds=5, purpose="shadow"
        )

    with ModelServer() as server:
        answer, receipt, _ = asked(tmp_path, server, embed)
    assert len(msgspec.json.decode(answer.body)["data"]) == 2
    assert (receipt.kind, receipt.purpose) == ("embeddings", "shadow")


@pytest.mark.parametrize("route", ["plain"])
def test_each_asking_has_its_own_receipt(tmp_path: Path, route: str) -> None:
    with ModelServer(answer="x") as server:
        release = sample_release(server.base_url)

        async def main() -> Worker:
            worker = Worker(tmp_path, release)
            await asyncio.gather(*(worker.ask(route) for _ in range(5)))
            for target in worker.parts.state.releases.targets():
                target.pool.close()
            return worker

        receipts = run(main()).receipts()
    assert len({receipt.id for receipt in receipts}) == 5
