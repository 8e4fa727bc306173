"""Command lines and addresses of the parts; which models a release needs."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tidegate.base.errors import RuntimeStateError
from tidegate.deploy.probes import ensure_port_free
from tidegate.deploy.rules import Doors, address, part_specs
from tidegate.gateway.__main__ import DRAIN_SECONDS, worker
from tidegate.gateway.wire.http_server import LINGER_SECONDS
from tidegate.release.values import GatewaySettings, Model, Release, Route, reachable_models

DOORS = Doors(host="0.0.0.0", port=8080, operator_port=8081, workers=3)


def test_the_gateway_starts_last() -> None:
    specs = part_specs(Path("/app/.tidegate"), DOORS)
    assert [spec.name for spec in specs] == ["ledger", "console", "gateway"]
    assert specs[1].argv[-4:] == ("--host", "127.0.0.1", "--port", "8081")
    expected = "--state /app/.tidegate --host 0.0.0.0 --port 8080 --workers 3"
    assert " ".join(specs[-1].argv[1:]) == f"-P -m tidegate.gateway {expected}"


def test_whoever_stops_a_worker_outlives_its_drain() -> None:
    """Or the requests that are cut at the end of the drain would leave no receipt."""
    (*_, gateway) = part_specs(Path("/app/.tidegate"), DOORS)
    with socket.socket() as door:
        of_worker = worker(door, Path("/app"), 1, DRAIN_SECONDS).grace
    assert gateway.grace > of_worker > DRAIN_SECONDS + 2 * LINGER_SECONDS


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "[::1]"),
        ("::1", "[::1]"),
        ("box.local", "box.local"),
    ],
)
def test_a_host_is_asked_where_it_can_be_reached(host: str, reached: str) -> None:
    assert address(host) == reached


def test_only_models_that_a_request_can_reach_are_run() -> None:
    models = {n: Model(name=n, kind="chat", provider="local", upstream=n) for n in ("a", "b", "c")}
    routes = {"r": Route(name="r", kind="chat", models=("b", "a"))}
    release = Release(app="x", models=models, routes=routes)
    assert [model.name for model in reachable_models(release)] == ["a", "b"]
    direct = Release(app="x", models=models, gateway=GatewaySettings(direct_models=True))
    assert len(reachable_models(direct)) == 3


def test_a_taken_port_is_named_with_its_option() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RuntimeStateError) as raised:
            ensure_port_free("127.0.0.1", port, "--operator-port")
    assert raised.value.code == "port_taken"
    assert f"127.0.0.1:{port}" in raised.value.message
    assert "--operator-port" in raised.value.cure
    ensure_port_free("127.0.0.1", port, "--operator-port")


def test_a_host_of_another_machine_is_refused() -> None:
    with pytest.raises(RuntimeStateError) as raised:
        ensure_port_free("192.0.2.1", 0, "--port")
    assert raised.value.code == "host_unknown"
