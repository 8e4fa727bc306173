"""Held answers, hedges, slow models, clients that leave: nothing lost, nothing left running."""

from __future__ import annotations

import json
import socket

import httpx
import msgspec
import pytest

from tests.gateway.app import GatewayProcess
from tests.gateway.conftest import ANSWER, SPARE_ANSWER
from tests.gateway.test_bad_input import CHAT, USER, eventually
from tests.gateway.test_faults import events, post, text_of
from tidegate.ledger.receipts import Receipt
from tidegate.testing import Constant, ModelServer, Script

BROKEN = ["cut=4", "cut=4 how=reset", "cut=4 how=clean", "stall=4", "error_event=4"]


class TestHeldAnswer:
    """Given a route with ``hold: answer``, a cut after content is never seen by the client."""

    @pytest.mark.parametrize("fault", BROKEN)
    def test_another_model_answers_from_the_start(
        self, gateway: GatewayProcess, upstream: ModelServer, fault: str
    ) -> None:
        upstream.script = Script.of(fault)
        answer = post(gateway, "held", stream=True)
        assert (answer.status_code, answer.headers["x-tidegate-model"]) == (200, "spare")
        assert (text_of(answer), events(answer)[-1]) == (SPARE_ANSWER, "[DONE]")
        (receipt,) = gateway.receipts(1)
        assert receipt.outcome == "served"
        broken, whole = receipt.attempts
        assert (broken.model, whole.model, whole.code) == ("small", "spare", None)
        assert broken.usage is not None, "what it wrote before the cut is billed"
        assert receipt.usage is not None
        assert receipt.cost is not None
        assert receipt.cost > receipt.usage.completion * 2e-6

    def test_with_nobody_left_it_is_a_status_and_no_half_answer(
        self, gateway: GatewayProcess, upstream: ModelServer
    ) -> None:
        upstream.script = Script.of("cut=4")
        answer = post(gateway, "held-alone", stream=True)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_cut")
        (receipt,) = gateway.receipts(1)
        assert receipt.outcome == "failed"
        assert receipt.cost

    def test_the_guard_speaks_before_the_first_byte(self, gateway: GatewayProcess) -> None:
        answer = post(gateway, "held-shaped", stream=True)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "output_invalid")

    def test_the_bytes_are_those_of_the_stream(self, gateway: GatewayProcess) -> None:
        held = post(gateway, "held", stream=True)
        assert (text_of(held), events(held)[-1]) == (ANSWER, "[DONE]")


class TestHedge:
    """Given a model that is slow to begin, another one is asked beside it."""

    @pytest.mark.parametrize("stream", [True, False])
    @pytest.mark.parametrize("route", ["hedged", "hedged-held"])
    def test_the_first_to_answer_wins_and_the_other_is_left(
        self,
        gateway: GatewayProcess,
        upstream: ModelServer,
        spare: ModelServer,
        route: str,
        stream: bool,
    ) -> None:
        upstream.script = Script.of("hang")
        answer = post(gateway, route, stream=stream)
        assert (answer.status_code, answer.headers["x-tidegate-model"]) == (200, "spare")
        assert SPARE_ANSWER in (text_of(answer) if stream else answer.text)
        (receipt,) = gateway.receipts(1)
        assert [(a.model, a.code) for a in receipt.attempts] == [
            ("small", "hedge_lost"),
            ("spare", None),
        ]
        assert receipt.cost is None, "what the loser bills is unknown, so it is not 0"
        eventually(lambda: upstream.requests[0].client_closed is not None, 2.0)
        eventually(lambda: busy(gateway) == 0, 2.0)

    def test_a_model_in_time_is_asked_alone(
        self, gateway: GatewayProcess, spare: ModelServer
    ) -> None:
        assert text_of(post(gateway, "hedged", stream=True)) == ANSWER
        assert not spare.requests

    def test_a_chain_of_one_is_asked_again(
        self, gateway: GatewayProcess, upstream: ModelServer
    ) -> None:
        upstream.script = Script.of("index=0 hang")
        assert text_of(post(gateway, "hedged-alone", stream=True)) == ANSWER
        assert len(upstream.requests) == 2

    def test_hedges_stay_within_their_share(
        self, gateway: GatewayProcess, upstream: ModelServer, spare: ModelServer
    ) -> None:
        upstream.script = Script.of("slow_first_token=250ms")
        for _ in range(12):
            assert post(gateway, "thrifty", stream=True).status_code == 200
        assert 1 <= len(spare.requests) <= 1 + 0.1 * 12 + 1


class TestMinimumRate:
    """Given a model that drips, each silence short: the whole is too slow and has its own code."""

    def test_a_held_answer_is_asked_elsewhere(
        self, gateway: GatewayProcess, upstream: ModelServer
    ) -> None:
        upstream.behaviour = msgspec.structs.replace(upstream.behaviour, inter_token=Constant(0.9))
        answer = post(gateway, "measured", stream=True)
        assert text_of(answer) == SPARE_ANSWER
        (receipt,) = gateway.receipts(1)
        assert [a.code for a in receipt.attempts] == ["upstream_rate_timeout", None]

    def test_an_open_stream_is_told_in_band(
        self, gateway: GatewayProcess, upstream: ModelServer
    ) -> None:
        upstream.behaviour = msgspec.structs.replace(upstream.behaviour, inter_token=Constant(0.9))
        answer = post(gateway, "measured-open", stream=True)
        assert "upstream_rate_timeout" in events(answer)[-1]


def busy(gateway: GatewayProcess) -> int:
    return int(httpx.get(f"{gateway.url}/ready").json()["upstream"]["busy"])


LEAVES = [
    ("plain", True, "hang"),  # waits for headers
    ("plain", True, "silence"),  # headers, no content
    ("plain", True, "stall=3"),  # mid-stream
    ("plain", False, "hang"),
    ("rescued", True, "hang"),
    ("held-alone", True, "stall=3"),  # content came, the client saw none
    ("hedged", True, "hang"),
    ("hedged", False, "hang"),
]


@pytest.mark.parametrize(("route", "stream", "fault"), LEAVES)
def test_a_client_that_leaves_takes_every_upstream_with_it(
    gateway: GatewayProcess,
    upstream: ModelServer,
    spare: ModelServer,
    route: str,
    stream: bool,
    fault: str,
) -> None:
    upstream.script = spare.script = Script.of(fault)
    body = {"model": route, "messages": USER, "stream": stream}
    with gateway.client() as client, pytest.raises(httpx.ReadTimeout):
        client.post(CHAT, json=body, timeout=0.4)
    asked = [*upstream.requests, *spare.requests]
    assert len(asked) == (2 if route == "hedged" else 1)
    eventually(lambda: all(one.client_closed is not None for one in asked), 2.0)
    eventually(lambda: busy(gateway) == 0, 2.0)
    (receipt,) = gateway.receipts(1)
    assert (receipt.outcome, receipt.code) == ("client_gone", "client_gone")
    if fault == "stall=3":  # text had come: its cost is an estimate, marked so, and not nothing
        assert receipt.usage is not None
        assert receipt.usage.estimated
        assert receipt.cost
    else:
        assert receipt.cost is None, "a model was asked; what it bills is unknown, so not 0"


class TestUsage:
    """Given the same work, streamed or not, the provider is asked for its count and it is used."""

    def both(self, gateway: GatewayProcess, route: str) -> list[Receipt]:
        post(gateway, route)
        streamed = post(gateway, route, stream=True)
        assert '"usage":{' not in streamed.text.replace(" ", ""), "the client did not ask for it"
        return gateway.receipts(2)

    @pytest.mark.parametrize("route", ["plain", "claude", "held"])
    def test_both_cost_the_same(
        self, gateway: GatewayProcess, upstream: ModelServer, route: str
    ) -> None:
        before = upstream.behaviour
        upstream.behaviour = msgspec.structs.replace(before, cached_share=0.5, reasoning_tokens=7)
        try:
            whole, streamed = self.both(gateway, route)
        finally:
            upstream.behaviour = before
        assert whole.usage == streamed.usage
        assert whole.cost == streamed.cost
        assert whole.cost
        assert whole.usage is not None
        assert not whole.usage.estimated
        assert whole.usage.cached > 0
        if route != "claude":
            assert upstream.requests[1].json["stream_options"]["include_usage"] is True
            assert whole.usage.reasoning == 7


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_has_no_more_bytes_than_its_route_bears(
    gateway: GatewayProcess, upstream: ModelServer, stream: bool
) -> None:
    assert post(gateway, "small-answers").status_code == 200
    before = upstream.behaviour
    upstream.behaviour = msgspec.structs.replace(before, answer="word " * 2000)
    try:
        answer = post(gateway, "small-answers", stream=stream)
    finally:
        upstream.behaviour = before
    if answer.status_code == 200:  # it had begun when it became too large
        assert stream
        assert json.loads(events(answer)[-1])["error"]["code"] == "upstream_too_large"
        assert len(answer.content) < 2048
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_too_large")
    receipt = gateway.receipts(2)[-1]
    assert receipt.code == "upstream_too_large"
    assert receipt.cost != 0, "the model wrote it"
    eventually(lambda: busy(gateway) == 0, 2.0)


def unread(gateway: GatewayProcess) -> socket.socket:
    """A connection that asked for a stream and has room for little of it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(10)
    client.connect(("127.0.0.1", gateway.port))
    body = msgspec.json.encode({"model": "plain", "messages": USER, "stream": True})
    client.sendall(
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    return client


def test_a_reader_that_does_not_read_holds_up_nobody_else(
    gateway: GatewayProcess, upstream: ModelServer
) -> None:
    before = upstream.behaviour
    upstream.behaviour = msgspec.structs.replace(before, answer="word " * 200_000)
    try:
        with unread(gateway) as slow:
            eventually(lambda: len(upstream.requests) == 1, 5.0)
            assert slow.recv(1, socket.MSG_PEEK), "it began"
            upstream.behaviour = before
            assert text_of(post(gateway, "plain", stream=True)) == ANSWER
            assert upstream.requests[0].completed is None, "the model waits for the reader"
    finally:
        upstream.behaviour = before
    eventually(lambda: busy(gateway) == 0, 5.0)
