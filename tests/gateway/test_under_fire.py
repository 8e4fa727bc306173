"""Models that fail, end to end: asked again, left alone, asked with another key, stood in for."""

from __future__ import annotations

import concurrent.futures
import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import TEMPLATE, _fresh_database
from tests.gateway.app import GatewayProcess
from tests.gateway.conftest import ANSWER, SPARE_ANSWER
from tests.gateway.releases import TIMEOUTS, pinned
from tests.gateway.test_bad_input import CHAT, USER, eventually
from tests.gateway.test_faults import events, text_of
from tidegate.base.children import log_folder
from tidegate.base.money import Price
from tidegate.ledger.receipts import Receipt
from tidegate.release.values import (
    Breaker,
    FixedAnswer,
    GatewaySettings,
    Model,
    Release,
    Retries,
    Route,
)
from tidegate.stores.postgres import PostgresPlace
from tidegate.testing import Cut, ModelServer, Refuse, Script, Step

KEYS = ("key-number-one", "key-number-two", "key-number-three")
SORRY = "Nobody is here just now."


def mark(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:8]


def model(name: str, url: str, **more: Any) -> Model:
    more.setdefault("breaker", None)  # so that the tests of this file do not meet each other
    price = Price(input=1.0, output=2.0)
    return Model(
        name=name, kind="chat", provider="openai", upstream=name, base_url=url, price=price, **more
    )


def release_of(first: str, second: str) -> Release:
    soon = Breaker(minimum=3, failures=0.5, window=60.0, open=0.6)
    models = [
        model("first", first),
        model("second", second),
        model("fragile", first, breaker=soon),
        model("plain-text", first, can=()),
        model("short", first, context=100),
        *(model(name, first, keys="secret:pool") for name in ("pool-a", "pool-b", "pool-c")),
        model("pool-d", first, keys="secret:pool", breaker=soon),
    ]
    keep = {"cache_ttl": 0.2, "stale": 60.0}
    sorry = FixedAnswer(pinned("sorry.md", SORRY), SORRY)
    never = Retries(most=0)

    def route(name: str, *names: str, **more: Any) -> Route:
        more = {"retries": Retries(backoff=0.05), "timeouts": TIMEOUTS, **more}
        return Route(name=name, kind="chat", models=names, **more)

    routes = [
        route("one", "first"),
        route("chain", "first", "second", retries=never),
        route("frugal", "first", retries=Retries(backoff=0.01, budget=0.1)),
        route("never", "first", retries=Retries(budget=0.0)),
        route("fragile", "fragile", retries=never),
        route("fragile-chain", "fragile", "second", retries=never),
        route("able", "plain-text", "second"),
        route("room", "short", "second"),
        *(route(name, name) for name in ("pool-a", "pool-b", "pool-c", "pool-d")),
        route("kept", "first", retries=never, **keep),
        route("kept-or-fixed", "first", retries=never, template=sorry, **keep),
        route("fixed", "first", "second", retries=never, template=sorry),
    ]
    return Release(
        app="fire",
        models={one.name: one for one in models},
        routes={one.name: one for one in routes},
        gateway=GatewaySettings(),
    )


@pytest.fixture(scope="module")
def fire(
    tmp_path_factory: pytest.TempPathFactory,
    servers: tuple[ModelServer, ModelServer],
    postgres_server: PostgresPlace,
    valkey_server: Path,
) -> Iterator[GatewayProcess]:
    release = release_of(servers[0].base_url, servers[1].base_url)
    folder = tmp_path_factory.mktemp("fire")
    with contextmanager(_fresh_database)(postgres_server, TEMPLATE) as database_url:
        process = GatewayProcess(
            folder,
            release,
            database_url,
            f"unix://{valkey_server}",
            environment={"TIDEGATE_SECRET_POOL": ",".join(KEYS)},
        )
        try:
            yield process.start()
        finally:
            process.stop()


@pytest.fixture
def gateway(
    fire: GatewayProcess, upstream: ModelServer, spare: ModelServer, valkey_url: str
) -> GatewayProcess:
    fire.forget()
    return fire


def ask(gateway: GatewayProcess, route: str, text: str = "hi", **more: Any) -> httpx.Response:
    messages = [{"role": "user", "content": text}]
    with gateway.client() as client:
        return client.post(CHAT, json={"model": route, "messages": messages, **more})


def only(gateway: GatewayProcess) -> Receipt:
    (receipt,) = gateway.receipts(1)
    return receipt


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def said(answer: httpx.Response) -> str:
    if answer.headers["content-type"].startswith("text/event-stream"):
        assert events(answer)[-1] == "[DONE]"
        return text_of(answer)
    return str(answer.json()["choices"][0]["message"]["content"])


PASSING = ["status=500", "status=503", "status=408", "status=429", "reset", "cut=0"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", PASSING)
def test_what_may_pass_is_asked_again_and_nobody_notices(
    gateway: GatewayProcess, upstream: ModelServer, fault: str, stream: bool
) -> None:
    upstream.script = Script.of(f"times=1 {fault}")
    answer = ask(gateway, "one", stream=stream)
    assert answer.status_code == 200
    assert said(answer) == ANSWER
    assert answer.headers["x-tidegate-served-by"] == "model"
    assert len(upstream.requests) == 2
    receipt = only(gateway)
    if fault != "reset":  # on a kept connection it may have been closed before: no try was made
        assert [attempt.code is None for attempt in receipt.attempts] == [False, True]
    assert receipt.served_by == "model"


@pytest.mark.parametrize(
    "fault",
    [
        Refuse(status=429, retry_after=1),
        Refuse(status=503, retry_after=2, retry_form="date"),
        Refuse(status=429, retry_after=0.7, retry_form="milliseconds"),
        Refuse(
            status=429,
            headers=(
                ("x-ratelimit-remaining-requests", "0"),
                ("x-ratelimit-reset-requests", "700ms"),
                ("x-ratelimit-remaining-tokens", "9"),
                ("x-ratelimit-reset-tokens", "1h"),
            ),
        ),
    ],
)
def test_a_provider_is_not_asked_again_before_it_said(
    gateway: GatewayProcess, upstream: ModelServer, fault: Refuse
) -> None:
    upstream.script = Script.of(Step(fault=fault, times=1))
    assert ask(gateway, "one").status_code == 200
    first, second = upstream.requests
    assert second.at - first.at > 0.6
    waited = [attempt.waited for attempt in only(gateway).attempts]
    assert waited[0] == 0.0
    assert 600 < waited[1] < 3000


def test_a_wait_beyond_the_deadline_is_told_at_once(
    gateway: GatewayProcess, upstream: ModelServer
) -> None:
    upstream.script = Script.of(Refuse(status=429, retry_after=40))
    answer = ask(gateway, "one")
    assert code_of(answer) == (429, "upstream_rate_limited")
    assert answer.headers["retry-after"] == "40"
    assert len(upstream.requests) == 1
    assert only(gateway).total < TIMEOUTS.total * 1000


@pytest.mark.parametrize("fault", ["status=400", "status=404", "status=422", "bad_body=html"])
def test_what_does_not_pass_is_not_asked_again(
    gateway: GatewayProcess, upstream: ModelServer, fault: str
) -> None:
    upstream.script = Script.of(fault)
    assert ask(gateway, "one").status_code >= 400
    assert len(upstream.requests) == 1


def test_nothing_is_asked_again_once_the_client_has_seen_content(
    gateway: GatewayProcess, upstream: ModelServer
) -> None:
    upstream.script = Script.of(Step(fault=Cut(after=3), times=1))
    answer = ask(gateway, "one", stream=True)
    assert answer.status_code == 200
    assert "[DONE]" not in events(answer)
    assert "upstream_cut" in events(answer)[-1]
    assert len(upstream.requests) == 1


def test_retries_are_a_share_of_the_traffic(gateway: GatewayProcess, upstream: ModelServer) -> None:
    upstream.script = Script.of("status=503")
    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(gateway, "frugal"), range(80)))
    assert {code_of(answer) for answer in answers} == {(502, "upstream_error")}
    retries = len(upstream.requests) - 80
    # ten are saved up, each request earns a tenth, each second a half
    assert 10 <= retries <= 10 + 8 + 0.5 * (time.monotonic() - started) + 1
    upstream.reset()
    upstream.script = Script.of("status=503")
    assert ask(gateway, "never").status_code == 502
    assert len(upstream.requests) == 1


def test_the_first_error_of_the_chain_is_told(
    gateway: GatewayProcess, upstream: ModelServer, spare: ModelServer
) -> None:
    upstream.script, spare.script = Script.of("status=503"), Script.of("status=429 retry_after=3")
    answer = ask(gateway, "chain")
    assert code_of(answer) == (502, "upstream_error")
    assert "'first'" in answer.json()["error"]["message"]
    assert "x-tidegate-served-by" not in answer.headers
    receipt = only(gateway)
    assert [attempt.model for attempt in receipt.attempts] == ["first", "second"]
    assert receipt.served_by is None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", ["chain", "fixed"])
def test_a_policy_refusal_is_shopped_nowhere(
    gateway: GatewayProcess, upstream: ModelServer, spare: ModelServer, route: str, stream: bool
) -> None:
    upstream.script = Script.of(Refuse.content_policy())
    answer = ask(gateway, route, stream=stream)
    assert code_of(answer) == (400, "content_policy_violation")
    assert (len(upstream.requests), len(spare.requests)) == (1, 0)


def test_a_failing_model_is_left_alone_then_probed_once(
    gateway: GatewayProcess, upstream: ModelServer, spare: ModelServer
) -> None:
    upstream.script = Script.of("status=500")
    assert [ask(gateway, "fragile").status_code for _ in range(3)] == [502] * 3
    upstream.reset()
    upstream.script = Script.of("status=500")
    refused = ask(gateway, "fragile")
    assert code_of(refused) == (503, "upstream_breaker_open")
    assert int(refused.headers["retry-after"]) >= 1
    assert not upstream.requests
    rescued = ask(gateway, "fragile-chain")
    assert (said(rescued), rescued.headers["x-tidegate-served-by"]) == (SPARE_ANSWER, "fallback")
    # Every open period brings one probe at most.
    started = time.monotonic()
    while time.monotonic() - started < 2.0:
        ask(gateway, "fragile")
    assert 1 <= len(upstream.requests) <= (time.monotonic() - started) / 0.6 + 1
    upstream.script = Script()
    eventually(lambda: ask(gateway, "fragile").status_code == 200, 10)
    assert [ask(gateway, "fragile").status_code for _ in range(5)] == [200] * 5
    costs = {r.code: r.cost for r in gateway.receipts() if r.route == "fragile"}
    assert costs["upstream_breaker_open"] == 0.0, "nothing was sent"


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


@pytest.mark.parametrize("stream", [False, True])
def test_a_kept_answer_past_its_time_stands_in(
    gateway: GatewayProcess, upstream: ModelServer, stream: bool
) -> None:
    text = f"remember {stream}"
    assert ask(gateway, "kept", text, stream=stream).headers["x-tidegate-served-by"] == "model"
    assert ask(gateway, "kept", "another", stream=stream).status_code == 200
    upstream.script = Script.of("status=500")
    found: list[httpx.Response] = []

    def stale() -> bool:
        found.append(ask(gateway, "kept", text, stream=stream))
        return found[-1].headers["x-tidegate-served-by"] == "stale"

    eventually(stale, 5)  # until then it is a kept answer in its time
    answer = found[-1]
    assert (answer.status_code, said(answer)) == (200, ANSWER)
    assert int(answer.headers["age"]) >= 0
    assert code_of(ask(gateway, "kept", "never asked")) == (502, "upstream_error")
    receipt = next(r for r in gateway.receipts() if r.served_by == "stale")
    assert receipt.outcome == "served"
    assert [attempt.code for attempt in receipt.attempts] == ["upstream_error"]
    assert (receipt.cost, receipt.usage) == (0.0, None)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", ["fixed", "kept-or-fixed"])
def test_fixed_text_stands_in_when_nothing_else_does(
    gateway: GatewayProcess, upstream: ModelServer, spare: ModelServer, route: str, stream: bool
) -> None:
    upstream.script = spare.script = Script.of("status=503")
    answer = ask(gateway, route, "not kept", stream=stream)
    assert answer.status_code == 200
    assert answer.headers["x-tidegate-served-by"] == "template"
    assert said(answer) == SORRY
    receipt = only(gateway)
    assert (receipt.served_by, receipt.outcome, receipt.cost) == ("template", "served", 0.0)


def test_fixed_text_is_not_what_an_idempotency_key_keeps(
    gateway: GatewayProcess, upstream: ModelServer, spare: ModelServer
) -> None:
    upstream.script = spare.script = Script.of("status=503")
    body = {"model": "fixed", "messages": USER}
    with gateway.client() as client:
        client.headers["idempotency-key"] = "k-1"
        assert said(client.post(CHAT, json=body)) == SORRY
        upstream.script = Script()
        again = client.post(CHAT, json=body)
    assert (said(again), again.headers["x-tidegate-served-by"]) == (ANSWER, "model")


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


@pytest.mark.parametrize(
    ("route", "more"),
    [
        ("able", {"tools": TOOLS}),
        ("able", {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}),
        ("room", {"text": "word " * 200}),
        ("room", {"max_tokens": 90, "text": "word " * 20}),
    ],
)
def test_a_model_that_cannot_do_it_is_passed_over(
    gateway: GatewayProcess, upstream: ModelServer, spare: ModelServer, route: str, more: Any
) -> None:
    plain = ask(gateway, route)
    assert (said(plain), plain.headers["x-tidegate-served-by"]) == (ANSWER, "model")
    upstream.reset()
    answer = ask(gateway, route, **more)
    assert answer.headers["x-tidegate-served-by"] == "fallback"
    assert not upstream.requests


def test_a_model_that_cannot_do_it_does_not_stand_in(
    gateway: GatewayProcess, upstream: ModelServer, spare: ModelServer
) -> None:
    """The other way round: what could do it fails, and the one that cannot is not asked."""
    spare.script = Script.of("status=500")
    answer = ask(gateway, "able", tools=TOOLS)
    assert code_of(answer) == (502, "upstream_error")
    assert not upstream.requests


def test_a_client_that_leaves_between_two_tries_costs_nothing(
    gateway: GatewayProcess, upstream: ModelServer
) -> None:
    upstream.script = Script.of(Refuse(status=503, retry_after=2))
    with gateway.client() as client, pytest.raises(httpx.ReadTimeout):
        client.post(CHAT, json={"model": "one", "messages": USER}, timeout=0.5)
    receipt = only(gateway)
    assert (receipt.outcome, receipt.cost) == ("client_gone", 0.0)
    assert len(upstream.requests) == 1
