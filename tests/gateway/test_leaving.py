"""Clients that leave, wherever their request is: the models are left, all that was held is free."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.gateway.app import GatewayProcess, own_gateway
from tests.gateway.releases import sample_release
from tests.gateway.test_admission import at_rest, queue_of
from tests.gateway.test_bad_input import CHAT, USER, eventually
from tests.gateway.test_limits import limit, the_counter
from tests.gateway.test_relay import busy
from tidegate.ledger.receipts import Receipt
from tidegate.release.values import Hedge, QueueSettings, Release, Retries, Route, Timeouts
from tidegate.stores.postgres import PostgresPlace
from tidegate.testing import ModelServer, Script

LONG = Timeouts(connect=2, first_token=20, idle=20, total=30)
AT_ONCE = 0.1
"""Seconds after which the models must have been left."""
TIMES = 4
MOST = 50
"""Tokens that each of these requests asks for."""


def release_of(first: ModelServer, second: ModelServer) -> Release:
    release = sample_release(first.base_url, second.base_url)
    more: dict[str, dict[str, Any]] = {
        "open": {},
        "patient": {"retries": Retries(most=2, backoff=0.02, budget=1.0)},
        "beside": {"models": ("small", "spare"), "hedge": Hedge(after=0.05, spend=1.0)},
        "all-of-it": {"hold": "answer"},
        "all-beside": {
            "models": ("small", "spare"),
            "hedge": Hedge(after=0.05, spend=1.0),
            "hold": "answer",
        },
    }
    routes = {
        name: Route(
            **{
                "name": name,
                "kind": "chat",
                "models": ("small",),
                "timeouts": LONG,
                "retries": Retries(most=0),
                "queue": QueueSettings(concurrent=1, waiting=0),
                **changes,
            }
        )
        for name, changes in more.items()
    }
    limits = [limit("tokens", "tokens", 100_000), limit("spend", "dollars", 100.0)]
    return msgspec.structs.replace(
        release, routes={**release.routes, **routes}, limits={one.name: one for one in limits}
    )


@pytest.fixture(scope="module")
def leaving_gateway(
    tmp_path_factory: pytest.TempPathFactory,
    servers: tuple[ModelServer, ModelServer],
    postgres_server: PostgresPlace,
    valkey_server: Path,
) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("leaving")
    with own_gateway(folder, release_of(*servers), postgres_server, valkey_server) as running:
        yield running


@pytest.fixture
def gateway(
    leaving_gateway: GatewayProcess, upstream: ModelServer, spare: ModelServer, valkey_url: str
) -> GatewayProcess:
    leaving_gateway.forget()
    return leaving_gateway


@contextmanager
def asking(gateway: GatewayProcess, route: str, stream: bool) -> Iterator[socket.socket]:
    """A connection on which the request was sent; it is closed at the end of the block."""
    body = msgspec.json.encode(
        {"model": route, "messages": USER, "stream": stream, "max_tokens": MOST}
    )
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as client:
        client.sendall(head.encode() + body)
        yield client


# route, stream, fault, models that are asked, what has come when the client leaves
WHERE = [
    pytest.param("open", True, "hang", 1, "nothing", id="before-headers"),
    pytest.param("open", True, "silence", 1, "nothing", id="before-the-first-byte"),
    pytest.param("open", True, "stall=3", 1, "text", id="mid-stream"),
    pytest.param("open", False, "hang", 1, "nothing", id="whole"),
    pytest.param("beside", True, "hang", 2, "nothing", id="hedge"),
    pytest.param("beside", False, "hang", 2, "nothing", id="hedge-of-a-whole-answer"),
    pytest.param("all-of-it", True, "stall=3", 1, "held", id="held-answer"),
    pytest.param("all-beside", True, "silence", 2, "nothing", id="hedge-of-a-held-answer"),
]


@pytest.mark.parametrize(("route", "stream", "fault", "models", "came"), WHERE)
def test_the_models_are_left_at_once_and_all_that_was_held_is_free(
    gateway: GatewayProcess,
    upstream: ModelServer,
    spare: ModelServer,
    valkey_url: str,
    route: str,
    stream: bool,
    fault: str,
    models: int,
    came: str,
) -> None:
    upstream.script = spare.script = Script.of(fault)
    took: list[float] = []
    for _ in range(TIMES):
        upstream.reset()
        spare.reset()
        with asking(gateway, route, stream) as client:
            for server in (upstream, spare)[:models]:
                server.wait_until(lambda one: len(one.requests) == 1)
            asked = [*upstream.requests, *spare.requests]
            assert len(asked) == models
            if came == "text":
                assert client.recv(1)
            if fault.startswith("stall"):
                upstream.wait_until(lambda one: one.requests[0].tokens_sent == 3)
            assert queue_of(gateway, route)["in_use"] == 1
            eventually(lambda: the_counter(valkey_url, "tokens:").reserved > MOST)
            left = time.monotonic()
        eventually(lambda: all(one.client_closed is not None for one in asked), 5)  # noqa: B023
        took.append(max(one.client_closed or 0.0 for one in asked) - left)
        eventually(lambda: at_rest(gateway) and busy(gateway) == 0)
    assert min(took) < AT_ONCE, "a busy machine may be late now and then, not every time"
    receipts = gateway.receipts(TIMES)
    assert {(r.outcome, r.code) for r in receipts} == {("client_gone", "client_gone")}
    assert {r.status for r in receipts} == {200 if came == "text" else 499}
    assert {len(r.attempts) for r in receipts} == {models}
    for receipt in receipts:
        if came == "nothing":
            assert receipt.cost is None, "a model was asked, nobody knows what it bills: not 0"
        else:
            assert receipt.cost
            assert receipt.usage is not None
            assert receipt.usage.estimated
    settled(valkey_url, receipts, models)


def settled(valkey_url: str, receipts: list[Receipt], models: int) -> None:
    """Nothing is reserved; what was used is what the receipts say, where they do, and else the
    worst that the models may have taken."""
    for name in ("tokens:", "spend:"):
        eventually(lambda: the_counter(valkey_url, name).reserved == 0)  # noqa: B023
    used = the_counter(valkey_url, "tokens:").used
    told = [r.usage.prompt + r.usage.completion for r in receipts if r.usage is not None]
    if told:
        assert used == sum(told)
    else:
        assert used >= len(receipts) * models * MOST
    assert the_counter(valkey_url, "spend:").used > 0


def test_who_leaves_between_two_tries_has_used_nothing(
    gateway: GatewayProcess, upstream: ModelServer, valkey_url: str
) -> None:
    upstream.script = Script.of("status=503 retry_after=8")
    with asking(gateway, "patient", False):
        upstream.wait_until(lambda one: one.statistics().completed == 1)
        assert queue_of(gateway, "patient")["in_use"] == 1
    (receipt,) = gateway.receipts(1)
    assert (receipt.outcome, receipt.status, receipt.cost) == ("client_gone", 499, 0)
    assert receipt.total < 8000, "the rest of the wait was not waited for"
    eventually(lambda: at_rest(gateway))
    for name in ("tokens:", "spend:"):
        eventually(lambda: the_counter(valkey_url, name).reserved == 0)  # noqa: B023
        assert the_counter(valkey_url, name).used == 0
    assert len(upstream.requests) == 1
