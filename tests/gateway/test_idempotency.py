"""The same Idempotency-Key and body: one call and one answer, over workers, failures and kills."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import psycopg
import pytest

from tests.gateway.app import GatewayProcess
from tests.gateway.conftest import ANSWER
from tests.gateway.test_bad_input import CHAT, USER, eventually
from tests.gateway.test_bad_luck import own_gateway, workers
from tests.gateway.test_faults import text_of
from tidegate.base.ids import new_id
from tidegate.stores.open import running
from tidegate.stores.valkey import valkey_spec
from tidegate.stores.valkey import valkey_url as url_of
from tidegate.switches import create_key
from tidegate.testing import ModelServer, Script

REPLAYED = "idempotent-replayed"


@pytest.fixture
def key() -> str:
    return new_id()


def ask(
    gateway: GatewayProcess, key: str | None, *, path: str = CHAT, token: str = "", **more: Any
) -> httpx.Response:
    body = {"model": "plain", "messages": USER, **more}
    if path != CHAT:
        body = more
    headers = {} if key is None else {"idempotency-key": key}
    if token:
        headers["authorization"] = f"Bearer {token}"
    with gateway.client() as client:
        return client.post(path, json=body, headers=headers)


def code(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"])


@pytest.mark.parametrize(
    "request_",
    [
        {"model": "plain", "messages": USER},
        {"model": "plain", "messages": USER, "stream": True},
        {"model": "claude", "messages": USER, "max_tokens": 50, "stream": True},
        {"path": "/v1/embeddings", "model": "embed", "input": "asked here only"},
    ],
)
def test_a_retry_gets_the_first_answer_and_costs_nothing(
    gateway: GatewayProcess, upstream: ModelServer, key: str, request_: dict[str, Any]
) -> None:
    first, second = ask(gateway, key, **request_), ask(gateway, f'"{key}"', **request_)
    assert first.status_code == second.status_code == 200
    assert first.content == second.content
    assert first.headers["content-type"] == second.headers["content-type"]
    assert REPLAYED not in first.headers
    assert second.headers[REPLAYED] == "true"
    assert second.headers["x-tidegate-cache"] == "idempotent"
    assert len(upstream.requests) == 1
    called, replayed = gateway.receipts(2)
    assert (replayed.cost, replayed.usage, replayed.replayed) == (0, None, called.usage)
    assert (replayed.cache, replayed.outcome) == ("idempotent", "served")
    assert replayed.stream is called.stream


def test_without_the_header_every_request_runs(
    gateway: GatewayProcess, upstream: ModelServer
) -> None:
    assert not any(REPLAYED in ask(gateway, None).headers for _ in range(2))
    assert len(upstream.requests) == 2


def test_another_body_or_form_with_the_same_key_is_refused(
    gateway: GatewayProcess, upstream: ModelServer, key: str
) -> None:
    ask(gateway, key)
    for other in ({"seed": 1}, {"stream": True}):
        refused = ask(gateway, key, **other)
        assert (refused.status_code, code(refused)) == (409, "idempotency_key_reused")
    assert len(upstream.requests) == 1
    assert gateway.receipts(3)[-1].code == "idempotency_key_reused"


def test_another_tenant_or_route_has_keys_of_its_own(
    gateway: GatewayProcess, upstream: ModelServer, key: str
) -> None:
    with psycopg.connect(gateway.runtime.database_url) as connection:
        stranger = create_key(connection, name=f"other {key}", tenant=key[:20]).token
        sibling = create_key(connection, name=f"sibling {key}", tenant="acme").token
    eventually(lambda: ask(gateway, None, token=sibling).status_code == 200)
    upstream.reset()
    assert REPLAYED not in ask(gateway, key).headers
    assert REPLAYED not in ask(gateway, key, token=stranger).headers
    assert REPLAYED not in ask(gateway, key, model="private").headers
    assert REPLAYED in ask(gateway, key, token=sibling).headers, "a rotated key, the same tenant"
    assert len(upstream.requests) == 3


@pytest.mark.parametrize("bad", ["", "x" * 256, "a,b", "caf\xe9"])
def test_a_malformed_key_is_refused(gateway: GatewayProcess, bad: str) -> None:
    with gateway.client() as client:
        body = {"model": "plain", "messages": USER}
        headers = [(b"idempotency-key", bad.encode("latin-1"))]
        refused = client.post(CHAT, json=body, headers=headers)
    assert (refused.status_code, code(refused)) == (400, "idempotency_key_invalid")


def test_what_may_succeed_later_runs_again_and_what_a_model_refused_does_not(
    gateway: GatewayProcess, upstream: ModelServer, key: str
) -> None:
    for status in (500, 429):
        upstream.script = Script.of(f"status={status}")
        assert ask(gateway, key).status_code in (502, 429)
    upstream.script = Script.of("status=400")
    refused, again = ask(gateway, key), ask(gateway, key)
    assert refused.status_code == again.status_code == 400
    assert refused.json() == again.json()
    assert again.headers[REPLAYED] == "true"
    assert len(upstream.requests) == 3
    upstream.script = Script()
    assert ask(gateway, key).status_code == 400, "it is the outcome for good"
    assert gateway.receipts(4)[-1].cost == 0


def test_a_stream_that_was_cut_runs_again(
    gateway: GatewayProcess, upstream: ModelServer, key: str
) -> None:
    upstream.script = Script.of("first=1 cut=3")
    assert "[DONE]" not in ask(gateway, key, stream=True).text
    whole = ask(gateway, key, stream=True)
    assert text_of(whole) == ANSWER
    assert REPLAYED not in whole.headers


def test_a_client_that_left_may_retry_at_once(
    gateway: GatewayProcess, upstream: ModelServer, key: str
) -> None:
    upstream.script = Script.of("first=1 slow_first_token=900ms")
    body = {"model": "plain", "messages": USER, "stream": True}
    with gateway.client() as client:
        client.headers["idempotency-key"] = key
        with pytest.raises(httpx.ReadTimeout):
            client.post(CHAT, json=body, timeout=0.3)
    again = ask(gateway, key, stream=True)
    assert text_of(again) == ANSWER
    assert REPLAYED not in again.headers


def test_a_cached_answer_is_kept_under_the_key_too(
    gateway: GatewayProcess, upstream: ModelServer, key: str
) -> None:
    more: dict[str, Any] = {"model": "plan", "messages": [], "tidegate": {"inputs": {"goal": key}}}
    ask(gateway, None, **more)
    first, second = ask(gateway, key, **more), ask(gateway, key, **more)
    assert first.headers["x-tidegate-cache"] == "hit"
    assert second.headers["x-tidegate-cache"] == "idempotent"
    assert len(upstream.requests) == 1


def test_while_the_first_runs_the_second_waits_over_workers(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer, key: str
) -> None:
    upstream.script = Script.of("slow_first_token=400ms")
    with own_gateway(tmp_path, database_url, valkey_url, upstream, workers=2) as gateway:
        eventually(lambda: len(workers(gateway)) == 2)
        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(lambda _: ask(gateway, key), range(10)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert len(upstream.requests) == 1
        assert sum(REPLAYED in answer.headers for answer in answers) == 9
        with gateway.client() as client:
            state = client.get("/ready").json()["idempotency"]
            assert state["held"] == 0


def test_another_body_is_refused_while_the_first_runs(
    gateway: GatewayProcess, upstream: ModelServer, key: str
) -> None:
    upstream.script = Script.of("first=1 slow_first_token=300ms")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, gateway, key)
        upstream.wait_until(lambda server: len(server.requests) == 1)
        refused = ask(gateway, key, seed=2)
        assert (refused.status_code, code(refused)) == (409, "idempotency_key_reused")
        assert first.result().status_code == 200


def test_a_worker_that_is_killed_frees_its_keys(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer, key: str
) -> None:
    upstream.script = Script.of("first=1 hang")
    with own_gateway(tmp_path, database_url, valkey_url, upstream) as gateway:

        def lost() -> None:
            with pytest.raises(httpx.HTTPError):
                ask(gateway, key)

        thread = threading.Thread(target=lost)
        thread.start()
        upstream.wait_until(lambda server: len(server.requests) == 1)
        workers(gateway)[0].send_signal(signal.SIGKILL)
        thread.join()
        refused: list[str] = []
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                answer = ask(gateway, key)
            except httpx.HTTPError:
                continue
            if answer.status_code == 200:
                break
            refused.append(code(answer))
        assert answer.status_code == 200, refused
        assert set(refused) <= {"idempotency_in_flight", "idempotency_unavailable"}
        assert len(upstream.requests) == 2


def test_without_its_store_a_request_with_a_key_is_refused_and_others_go_on(
    tmp_path: Path, database_url: str, upstream: ModelServer, key: str
) -> None:
    (tmp_path / "v").mkdir()
    with running(valkey_spec(tmp_path / "v")) as child:
        url = url_of(tmp_path / "v")
        with own_gateway(tmp_path, database_url, url, upstream) as gateway:
            assert ask(gateway, key).status_code == 200
            os.kill(child.pid, signal.SIGSTOP)
            try:
                refused = ask(gateway, key)
                assert (refused.status_code, code(refused)) == (503, "idempotency_unavailable")
                assert refused.headers["retry-after"] == "1"
                assert ask(gateway, None).status_code == 200
            finally:
                os.kill(child.pid, signal.SIGCONT)
            eventually(lambda: ask(gateway, key).status_code == 200, 10)
            assert ask(gateway, key).headers[REPLAYED] == "true"


@pytest.fixture
def client(gateway: GatewayProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:
        yield client


def test_with_the_openai_package(client: openai.OpenAI, upstream: ModelServer, key: str) -> None:
    def once(**more: Any) -> Any:
        return client.chat.completions.create(
            model="plain",
            messages=[{"role": "user", "content": "hello"}],
            extra_headers={"Idempotency-Key": key},
            **more,
        )

    assert once() == once()
    with pytest.raises(openai.ConflictError) as reused:
        once(stream=True)
    assert reused.value.code == "idempotency_key_reused"
    assert len(upstream.requests) == 1
