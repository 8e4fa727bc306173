"""The embeddings pool on the real MiniLM, through the official client."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import httpx
import numpy
import openai
import pytest
from starlette.testclient import TestClient

from tidegate.pools import ModelPool
from tidegate.pools.embed_server import make_app
from tidegate.pools.encoder import EncodedTexts, Encoder

pytestmark = pytest.mark.timeout(600)  # the first test may have to fetch the weights


def vectors(client: openai.OpenAI, *texts: str, **more: object) -> numpy.ndarray:
    answer = client.embeddings.create(model="minilm", input=list(texts), **more)  # type: ignore[arg-type]
    assert [entry.index for entry in answer.data] == list(range(len(texts)))
    return numpy.array([entry.embedding for entry in answer.data])


def post(pool: ModelPool, body: object, key: str | None = None) -> httpx.Response:
    headers = {"authorization": f"Bearer {key or pool.address.api_key}"}
    return httpx.post(f"{pool.address.base_url}/embeddings", json=body, headers=headers)


def test_paraphrases_are_nearer_than_strangers(embedder: openai.OpenAI) -> None:
    pairs = [
        ("how do I cancel my subscription?", "I want to stop my membership"),
        ("my knee hurts when I run", "running gives me pain in the knee"),
        ("what should I eat before training?", "a good meal ahead of a workout"),
    ]
    left = vectors(embedder, *(a for a, _ in pairs))
    right = vectors(embedder, *(b for _, b in pairs))
    cosines = left @ right.T
    strangers = cosines[~numpy.eye(len(pairs), dtype=bool)]
    assert cosines.diagonal().min() > strangers.max() + 0.1


def test_base64_and_floats_give_the_same_unit_vectors(embedder: openai.OpenAI) -> None:
    # The official client asks for base64 unless told otherwise.
    coded = vectors(embedder, "warm up", "cool down")
    plain = vectors(embedder, "warm up", "cool down", encoding_format="float")
    assert coded.shape == (2, 384)
    numpy.testing.assert_allclose(coded, plain, atol=1e-6)
    numpy.testing.assert_allclose(numpy.linalg.norm(plain, axis=1), 1, atol=1e-5)


def test_a_text_has_the_same_vector_alone_and_among_others(embedder: openai.OpenAI) -> None:
    alone = vectors(embedder, "squats")[0]
    among = vectors(embedder, "a much longer text about breathing and rest " * 3, "squats")[1]
    assert alone @ among > 0.9999


def test_counts_tokens_and_cuts_at_256(embedder: openai.OpenAI) -> None:
    short = embedder.embeddings.create(model="minilm", input="squats and planks")
    long = embedder.embeddings.create(model="minilm", input="knee " * 600)
    assert 3 <= short.usage.prompt_tokens <= 8
    assert long.usage.prompt_tokens == 256


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "minilm"}, 400, "invalid_request"),
        ({"model": "minilm", "input": 7}, 400, "invalid_request"),
        ({"model": "minilm", "input": []}, 400, "invalid_input"),
        ({"model": "minilm", "input": ""}, 400, "invalid_input"),
        ({"model": "minilm", "input": ["a", " "]}, 400, "invalid_input"),
        ({"model": "minilm", "input": [[1, 2]]}, 400, "invalid_input"),
        ({"model": "minilm", "input": ["a"] * 2049}, 400, "invalid_input"),
        ({"model": "minilm", "input": "a", "encoding_format": "hex"}, 400, "invalid_request"),
        ({"model": "minilm", "input": "a", "dimensions": 12}, 400, "dimensions_unsupported"),
        ({"model": "other", "input": "a"}, 404, "model_not_found"),
    ],
)
def test_refuses_bad_input(embed_pool: ModelPool, body: object, status: int, code: str) -> None:
    answer = post(embed_pool, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_refuses_what_is_no_json_and_what_is_too_large(embed_pool: ModelPool) -> None:
    headers = {"authorization": f"Bearer {embed_pool.address.api_key}"}
    url = f"{embed_pool.address.base_url}/embeddings"
    for broken in (b"{", b'{"model": "\xff"}', b'{"x": ' + b"[" * 100_000):
        assert httpx.post(url, content=broken, headers=headers).status_code == 400
    assert httpx.post(url, content=b" " * (17 << 20), headers=headers).status_code == 413


def test_refuses_another_key(embed_pool: ModelPool) -> None:
    assert post(embed_pool, {"model": "minilm", "input": "a"}, key="no").status_code == 401


def test_other_addresses_are_refused_in_the_same_shape(embed_pool: ModelPool) -> None:
    root = f"http://127.0.0.1:{embed_pool.port}"
    for answer in (httpx.get(f"{root}/v1/embeddings"), httpx.get(f"{root}/nowhere")):
        assert answer.status_code in (404, 405)
        assert answer.json()["error"]["code"] == "unknown_address"


def test_an_engine_that_fails_is_told_and_the_next_request_is_served() -> None:
    class Moody:
        dimensions = 1

        def encode(self, texts: Sequence[str]) -> EncodedTexts:
            if "bad" in texts:
                raise ValueError("secret text")
            return EncodedTexts(numpy.ones((len(texts), 1), numpy.float32), [1] * len(texts))

    app = make_app(cast(Encoder, Moody()), "m", "k")
    with TestClient(
        app, raise_server_exceptions=False, headers={"authorization": "Bearer k"}
    ) as client:
        failed = client.post("/v1/embeddings", json={"model": "m", "input": "bad"})
        assert (failed.status_code, failed.json()["error"]["code"]) == (500, "engine_failed")
        assert "secret" not in failed.text
        assert client.post("/v1/embeddings", json={"model": "m", "input": "ok"}).status_code == 200


def test_a_long_request_delays_neither_health_nor_a_short_one(embed_pool: ModelPool) -> None:
    asyncio.run(long_beside_short(embed_pool))


async def long_beside_short(pool: ModelPool) -> None:
    headers = {"authorization": f"Bearer {pool.address.api_key}"}
    url = f"{pool.address.base_url}/embeddings"
    async with httpx.AsyncClient(headers=headers, timeout=60) as client:
        body = {"model": "minilm", "input": ["a steady walk in the morning light"] * 320}
        long = asyncio.create_task(client.post(url, json=body))
        await asyncio.sleep(0.1)
        health = await client.get(f"http://127.0.0.1:{pool.port}/health")
        short = await client.post(url, json={"model": "minilm", "input": "rest"})
        assert (health.status_code, short.status_code) == (200, 200)
        assert not long.done(), "both came before the long one"
        assert len((await long).json()["data"]) == 320
