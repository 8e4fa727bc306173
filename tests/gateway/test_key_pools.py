"""A pool of keys on a real gateway: taken in turn, left when one is of no use, never shown."""

from __future__ import annotations

import concurrent.futures
import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.app import GatewayProcess, own_gateway
from tests.gateway.releases import TIMEOUTS
from tests.gateway.test_bad_input import CHAT, USER
from tidegate.base.children import log_folder
from tidegate.base.money import Price
from tidegate.ledger.receipts import Receipt
from tidegate.release.values import (
    GatewaySettings,
    Model,
    Release,
    Route,
)
from tidegate.stores.postgres import PostgresPlace
from tidegate.testing import ModelServer, Refuse, Script, Step

KEYS = ("key-number-one", "key-number-two", "key-number-three")
POOLS = ("pool-a", "pool-b", "pool-c", "pool-d")
"""Models with the same keys, so that what one test does to a key is not seen by the next."""


def mark(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:8]


def model(name: str, url: str, **more: Any) -> Model:
    more.setdefault("breaker", None)  # so that the tests of this file do not meet each other
    price = Price(input=1.0, output=2.0)
    return Model(
        name=name, kind="chat", provider="openai", upstream=name, base_url=url, price=price, **more
    )


def release_of(url: str) -> Release:
    models = [model(name, url, keys="secret:pool") for name in POOLS]
    models.append(model("alone", url))
    routes = [
        Route(name=one.name, kind="chat", models=(one.name,), timeouts=TIMEOUTS) for one in models
    ]
    return Release(
        app="pools",
        models={one.name: one for one in models},
        routes={one.name: one for one in routes},
        gateway=GatewaySettings(),
    )


@pytest.fixture(scope="module")
def pooled(
    tmp_path_factory: pytest.TempPathFactory,
    servers: tuple[ModelServer, ModelServer],
    postgres_server: PostgresPlace,
    valkey_server: Path,
) -> Iterator[GatewayProcess]:
    release = release_of(servers[0].base_url)
    folder = tmp_path_factory.mktemp("pools")
    secret = {"TIDEGATE_SECRET_POOL": ",".join(KEYS)}
    with own_gateway(
        folder, release, postgres_server, valkey_server, environment=secret
    ) as running:
        yield running


@pytest.fixture
def gateway(
    pooled: GatewayProcess, upstream: ModelServer, spare: ModelServer, valkey_url: str
) -> GatewayProcess:
    pooled.forget()
    return pooled


def ask(gateway: GatewayProcess, route: str, text: str = "hi", **more: Any) -> httpx.Response:
    messages = [{"role": "user", "content": text}]
    with gateway.client() as client:
        return client.post(CHAT, json={"model": route, "messages": messages, **more})


def only(gateway: GatewayProcess) -> Receipt:
    (receipt,) = gateway.receipts(1)
    return receipt


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def by_key(server: ModelServer) -> Counter[str | None]:
    return Counter(request.key for request in server.requests)


def test_keys_take_turns(gateway: GatewayProcess, upstream: ModelServer) -> None:
    assert all(ask(gateway, "pool-a").status_code == 200 for _ in range(9))
    assert by_key(upstream) == dict.fromkeys(KEYS, 3)
    assert {r.attempts[0].key for r in gateway.receipts(9)} == {mark(key) for key in KEYS}


@pytest.mark.parametrize(
    ("route", "fault"),
    [("pool-b", Refuse.key_revoked()), ("pool-c", Refuse.quota())],
    ids=["rejected", "exhausted"],
)
def test_a_key_that_is_of_no_use_is_left_and_no_request_is_lost(
    gateway: GatewayProcess, upstream: ModelServer, route: str, fault: Refuse
) -> None:
    upstream.script = Script.of(Step(fault=fault, key=KEYS[0]))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: ask(gateway, route, stream=n % 2 == 0), range(40)))
    assert [answer.status_code for answer in answers] == [200] * 40
    seen = by_key(upstream)
    assert 1 <= seen[KEYS[0]] <= 4, "as many as were under way when it was first refused"
    assert seen[KEYS[1]] + seen[KEYS[2]] == 40
    failed = [a for r in gateway.receipts(40) for a in r.attempts if a.code is not None]
    assert {attempt.key for attempt in failed} == {mark(KEYS[0])}
    log = (log_folder(gateway.state) / "gateway-1.log").read_text()
    assert not any(key in log for key in KEYS)
    assert log.count(mark(KEYS[0])) >= 1, "the operator is told which key it is"


def test_when_every_key_is_rejected_that_is_told_and_no_key_is(
    gateway: GatewayProcess, upstream: ModelServer
) -> None:
    upstream.script = Script.of(Refuse(status=401, message=f"bad key {KEYS[0]} {KEYS[1]}"))
    answer = ask(gateway, "pool-d")
    assert code_of(answer) == (502, "upstream_key_rejected")
    assert not any(key in answer.text for key in KEYS)
    assert sorted(by_key(upstream).values()) == [1, 1, 1]
    assert code_of(ask(gateway, "pool-d")) == (502, "upstream_key_rejected")
    assert len(upstream.requests) == 3, "all of them rest: nothing is sent"


def test_a_client_that_leaves_between_two_tries_costs_nothing(
    gateway: GatewayProcess, upstream: ModelServer
) -> None:
    upstream.script = Script.of(Refuse(status=503, retry_after=2))
    with gateway.client() as client, pytest.raises(httpx.ReadTimeout):
        client.post(CHAT, json={"model": "alone", "messages": USER}, timeout=0.5)
    receipt = only(gateway)
    assert (receipt.outcome, receipt.cost) == ("client_gone", 0.0)
    assert len(upstream.requests) == 1
