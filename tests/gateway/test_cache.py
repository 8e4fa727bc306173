"""The exact cache, end to end: what is answered from it, and what must not be."""

from __future__ import annotations

import concurrent.futures
import itertools
import json
from typing import Any

import httpx
import pytest

from tests.gateway.app import GatewayProcess
from tests.gateway.conftest import ANSWER
from tests.gateway.test_bad_input import CHAT, eventually
from tests.gateway.test_faults import events, text_of
from tidegate.ledger.spool_reader import read_chunk, spool_files
from tidegate.testing import ModelServer, Script

_test = itertools.count()


@pytest.fixture(autouse=True)
def fresh_goals() -> None:
    """Goals that no other test asked for: a worker remembers for a second what it served."""
    next(_test)


def inputs(goal: str) -> dict[str, Any]:
    return {"inputs": {"goal": f"{goal} {_test!r}"}}


def plan(gateway: GatewayProcess, goal: str = "run", **more: Any) -> httpx.Response:
    body = {"model": "plan", "messages": [], "tidegate": inputs(goal), **more}
    with gateway.client() as client:
        return client.post(CHAT, json=body)


def test_given_a_call_when_it_is_repeated_then_no_model_is_asked(
    gateway: GatewayProcess, upstream: ModelServer
) -> None:
    first, second = plan(gateway), plan(gateway)
    assert first.headers["x-tidegate-cache"] == "miss"
    assert second.headers["x-tidegate-cache"] == "hit"
    assert int(second.headers["age"]) >= 0
    assert second.content == first.content
    assert len(upstream.requests) == 1
    miss, hit = gateway.receipts(2)
    assert (miss.cache, hit.cache) == ("miss", "hit")
    assert hit.cost == 0
    assert hit.usage is None
    assert hit.replayed == miss.usage, "tokens that were not billed again are told apart"
    assert "call" not in hit.stages


def test_whatever_may_change_the_answer_changes_the_key(
    gateway: GatewayProcess, upstream: ModelServer
) -> None:
    variants: list[dict[str, Any]] = [
        {},
        {"goal": "swim"},
        {"seed": 1},
        {"stop": ["x"]},
        {"top_p": 0.5},
        {"a_parameter_of_tomorrow": True},
        {"messages": [{"role": "user", "content": "and gently"}]},
        {"stream": True},
        {"stream": True, "stream_options": {"include_usage": True}},
    ]
    for variant in variants:
        assert plan(gateway, **variant).headers["x-tidegate-cache"] == "miss", variant
    for variant in variants:
        assert plan(gateway, **variant).headers["x-tidegate-cache"] == "hit", variant
    assert plan(gateway, user="somebody else").headers["x-tidegate-cache"] == "hit"
    assert len(upstream.requests) == len(variants)


def test_a_stream_is_replayed_byte_for_byte(gateway: GatewayProcess) -> None:
    first, second = plan(gateway, stream=True), plan(gateway, stream=True)
    assert second.headers["x-tidegate-cache"] == "hit"
    assert second.content == first.content
    assert events(second)[-1] == "[DONE]"
    ours = {first.headers["x-request-id"], second.headers["x-request-id"]}
    eventually(lambda: ours <= {receipt.id for receipt in gateway.receipts()})
    kept = [
        json.loads(record.response)["choices"][0]["message"]["content"]
        for path in spool_files(gateway.runtime.spool)
        for record in read_chunk(path, 0, records=1 << 20, size=1 << 30).records
        if json.loads(record.receipt)["id"] in ours
    ]
    assert kept == [ANSWER, ANSWER], "the ledger has what was replayed, too"


def test_identical_calls_in_flight_are_asked_once(
    gateway: GatewayProcess, upstream: ModelServer
) -> None:
    upstream.script = Script.of("slow_first_token=300ms")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: plan(gateway, "together"), range(8)))
    assert len({answer.content for answer in answers}) == 1
    assert len(upstream.requests) == 1
    results = sorted(receipt.cache for receipt in gateway.receipts(8))
    assert results == ["miss"] + ["shared"] * 7


def test_what_failed_or_was_cut_short_is_not_kept(
    gateway: GatewayProcess, upstream: ModelServer
) -> None:
    upstream.script = Script.of("first=1 status=500")
    assert plan(gateway, "again").status_code == 502
    assert plan(gateway, "again").headers["x-tidegate-cache"] == "miss"
    assert plan(gateway, "short", max_tokens=2).headers["x-tidegate-cache"] == "miss"
    assert plan(gateway, "short", max_tokens=2).headers["x-tidegate-cache"] == "miss"


def test_a_request_can_ask_for_a_fresh_answer(
    gateway: GatewayProcess, upstream: ModelServer
) -> None:
    plan(gateway)
    assert plan(gateway, temperature=0.7).headers["x-tidegate-cache"] == "bypass"
    with gateway.client() as client:
        body = {"model": "plan", "messages": [], "tidegate": inputs("run")}
        answer = client.post(CHAT, json=body, headers={"cache-control": "no-cache"})
    assert answer.headers["x-tidegate-cache"] == "bypass"
    assert len(upstream.requests) == 3


def test_a_route_without_a_ttl_keeps_nothing(gateway: GatewayProcess) -> None:
    with gateway.client() as client:
        body = {"model": "plain", "messages": [{"role": "user", "content": "hi"}]}
        caches = [client.post(CHAT, json=body).headers["x-tidegate-cache"] for _ in range(2)]
    assert caches == ["off", "off"]


def test_embeddings_are_kept_too(gateway: GatewayProcess, upstream: ModelServer) -> None:
    with gateway.client() as client:
        body = {"model": "embed", "input": "squat"}
        answers = [client.post("/v1/embeddings", json=body) for _ in range(2)]
    assert answers[1].headers["x-tidegate-cache"] == "hit"
    assert answers[0].content == answers[1].content


def test_streams_of_several_workers_replay(gateway: GatewayProcess) -> None:
    assert text_of(plan(gateway, stream=True)) == text_of(plan(gateway, stream=True))
