"""One gateway over two simulated model servers, shared by most tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.gateway.app import GatewayProcess, own_gateway
from tests.gateway.releases import sample_release
from tidegate.stores.postgres import PostgresPlace
from tidegate.testing import Constant, ModelServer, Script

ANSWER = "The quick brown fox jumps over the lazy dog"
SPARE_ANSWER = "A spare answer"


@pytest.fixture(scope="package")
def servers() -> Iterator[tuple[ModelServer, ModelServer]]:
    with ModelServer(answer=ANSWER) as first, ModelServer(answer=SPARE_ANSWER) as second:
        yield first, second


@pytest.fixture(scope="package")
def shared_gateway(
    tmp_path_factory: pytest.TempPathFactory,
    servers: tuple[ModelServer, ModelServer],
    postgres_server: PostgresPlace,
    valkey_server: Path,
) -> Iterator[GatewayProcess]:
    first, second = servers
    release = sample_release(first.base_url, second.base_url, first.url)
    folder = tmp_path_factory.mktemp("gateway")
    with own_gateway(folder, release, postgres_server, valkey_server) as running:
        yield running


@pytest.fixture
def upstream(servers: tuple[ModelServer, ModelServer]) -> ModelServer:
    """The server of the first model, as new: nothing scripted, nothing seen."""
    return as_new(servers[0])


@pytest.fixture
def spare(servers: tuple[ModelServer, ModelServer]) -> ModelServer:
    """The fallback's server, as new."""
    return as_new(servers[1])


def as_new(server: ModelServer) -> ModelServer:
    server.reset()
    server.script = Script()
    server.behaviour = msgspec.structs.replace(server.behaviour, inter_token=Constant(0.0))
    return server


@pytest.fixture
def gateway(
    shared_gateway: GatewayProcess, upstream: ModelServer, spare: ModelServer, valkey_url: str
) -> GatewayProcess:
    """The shared gateway with an empty cache; its ``receipts`` are those of this test."""
    shared_gateway.forget()
    return shared_gateway
