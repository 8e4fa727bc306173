"""The official openai package works against the gateway unchanged."""

from __future__ import annotations

import asyncio

import openai
import pytest

from tests.gateway.app import GatewayProcess
from tidegate.testing import ModelServer

TEXT = "The quick brown fox jumps over the lazy dog"


@pytest.fixture
def client(gateway: GatewayProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0)


def ask(client: openai.OpenAI, model: str = "plain", **more: object):
    messages = [{"role": "user", "content": "hello"}]
    return client.chat.completions.create(model=model, messages=messages, **more)


def test_a_whole_answer(client: openai.OpenAI, gateway: GatewayProcess) -> None:
    answer = ask(client)
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    (receipt,) = gateway.receipts(1)
    assert (receipt.outcome, receipt.route, receipt.model) == ("served", "plain", "small")
    assert receipt.tenant == "acme"
    assert receipt.release == gateway.digest
    assert receipt.usage is not None
    assert receipt.usage.prompt == answer.usage.prompt_tokens
    assert receipt.usage.completion == answer.usage.completion_tokens
    expected = (answer.usage.prompt_tokens + 2 * answer.usage.completion_tokens) / 1e6
    assert receipt.cost == pytest.approx(expected)
    assert set(receipt.stages) >= {"admit", "render", "cache", "route", "call", "record"}


def test_a_stream(client: openai.OpenAI, gateway: GatewayProcess) -> None:
    chunks = list(ask(client, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == TEXT
    assert all(chunk.choices for chunk in chunks), "usage was not asked for, so it is not shown"
    (receipt,) = gateway.receipts(1)
    assert receipt.stream
    assert receipt.finish == "stop"
    assert receipt.usage is not None
    assert not receipt.usage.estimated
    assert receipt.first_token is not None
    assert receipt.first_token <= receipt.total


def test_a_stream_with_usage(client: openai.OpenAI) -> None:
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


def test_a_templated_route(client: openai.OpenAI, upstream: ModelServer) -> None:
    inputs = {"goal": "a 5 km run", "level": "athlete"}
    client.chat.completions.create(
        model="plan", messages=[], extra_body={"tidegate": {"inputs": inputs}}
    )
    (seen,) = upstream.requests
    assert seen.json["messages"] == [
        {"role": "user", "content": "Make a plan for a 5 km run at level athlete."}
    ]
    assert seen.json["model"] == "mock-1"
    assert "tidegate" not in seen.json


def test_embeddings(client: openai.OpenAI, gateway: GatewayProcess) -> None:
    answer = client.embeddings.create(model="embed", input=["squat", "plank"])
    assert len(answer.data) == 2
    assert len(answer.data[0].embedding) == 384
    (receipt,) = gateway.receipts(1)
    assert receipt.kind == "embeddings"
    assert receipt.usage is not None


def test_models(client: openai.OpenAI, gateway: GatewayProcess) -> None:
    names = {model.id for model in client.models.list()}
    assert {"plain", "plan", "embed", "small"} <= names
    assert client.models.retrieve("plan").id == "plan"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")
    receipts = gateway.receipts(3)
    assert [(r.kind, r.status, r.outcome) for r in receipts] == [
        ("other", 200, "served"), ("other", 200, "served"), ("other", 404, "refused"),
    ]  # fmt: skip


def test_a_model_where_the_spec_allows_it(client: openai.OpenAI) -> None:
    assert ask(client, model="small").choices[0].message.content == TEXT


def test_an_anthropic_model(client: openai.OpenAI, gateway: GatewayProcess) -> None:
    answer = ask(client, model="claude", max_tokens=50)
    assert answer.choices[0].message.content == TEXT
    streamed = ask(client, model="claude", stream=True, stream_options={"include_usage": True})
    chunks = list(streamed)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == TEXT
    first, second = gateway.receipts(2)
    assert first.usage == second.usage
    assert first.cost == second.cost


def test_errors_are_the_package_s_own(client: openai.OpenAI, gateway: GatewayProcess) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        ask(client, model="plian")
    assert missing.value.code == "route_unknown"
    assert "did you mean 'plan'?" in str(missing.value)
    wrong = client.with_options(api_key="tg-000000000000-" + "x" * 43)
    with pytest.raises(openai.AuthenticationError) as refused:
        ask(wrong)
    assert refused.value.code == "key_invalid"
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(
            model="plan", messages=[], extra_body={"tidegate": {"inputs": {}}}
        )
    assert bad.value.code == "input_missing"
    assert bad.value.param == "tidegate.inputs.goal"
    assert [r.code for r in gateway.receipts(3)] == [
        "route_unknown", "key_invalid", "input_missing",
    ]  # fmt: skip


def test_the_asynchronous_client(gateway: GatewayProcess) -> None:
    async def ask_streamed() -> str:
        async with openai.AsyncOpenAI(
            base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0
        ) as client:
            stream = await client.chat.completions.create(
                model="plain", messages=[{"role": "user", "content": "hello"}], stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(ask_streamed()) == TEXT
