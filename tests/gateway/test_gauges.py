"""Each worker tells once a second what it has under way, and that is nothing once all is over."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from tests.gateway.app import GatewayProcess
from tidegate.ledger.gauges import WorkerGauges, read_gauges
from tidegate.testing import Constant, ModelServer


def told(gateway: GatewayProcess, holds: Callable[[WorkerGauges], bool]) -> WorkerGauges:
    """The first report of the one worker of which ``holds`` is true."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for one in read_gauges(gateway.runtime.run).values():
            if holds(one):
                return one
        time.sleep(0.05)
    raise AssertionError(f"never told: {read_gauges(gateway.runtime.run)}")


def test_given_a_stream_when_it_ends_then_the_gauges_return_to_zero(
    gateway: GatewayProcess, upstream: ModelServer
) -> None:
    upstream.behaviour = msgspec.structs.replace(upstream.behaviour, inter_token=Constant(0.4))
    body = {"model": "plain", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    with (
        gateway.client() as client,
        client.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        busy = told(gateway, lambda one: one.gauges["running"] == 1)
        assert busy.gauges["upstream_busy"] == 1
        assert busy.release == gateway.digest
        answer.read()
    idle = told(gateway, lambda one: one.at > busy.at and one.gauges["running"] == 0)
    held = {"running", "upstream_busy", "cache_flights", "valkey_pending", "spool_waiting"}
    assert {name: idle.gauges[name] for name in held} == dict.fromkeys(held, 0.0)
