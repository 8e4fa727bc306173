"""Upstreams that refuse, hang, cut: bounded, coded, never an ending that looks like success."""

from __future__ import annotations

import json
from typing import Any

import httpx
import msgspec
import pytest

from tests.gateway.app import GatewayProcess
from tests.gateway.conftest import ANSWER, SPARE_ANSWER
from tests.gateway.test_bad_input import CHAT, USER, eventually
from tidegate.testing import Constant, ModelServer, Script


def post(gateway: GatewayProcess, model: str, **more: Any) -> httpx.Response:
    with gateway.client() as client:
        return client.post(CHAT, json={"model": model, "messages": USER, **more})


def events(answer: httpx.Response) -> list[str]:
    return [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]


def text_of(answer: httpx.Response) -> str:
    chunks = [json.loads(event) for event in events(answer) if event != "[DONE]"]
    return "".join(
        c["choices"][0]["delta"].get("content") or "" for c in chunks if c.get("choices")
    )


BEFORE_CONTENT = [
    ("status=429 retry_after=7", "upstream_rate_limited", 429),
    ("status=500", "upstream_error", 502),
    ("status=503", "upstream_error", 502),
    ("status=401", "upstream_key_rejected", 502),
    ("reset", "upstream_cut", 502),
    ("silence", "upstream_first_token_timeout", 504),
    ("hang", "upstream_first_token_timeout", 504),
    ("cut=0", "upstream_cut", 502),
    ("error_event=0", "upstream_cut", 502),
]


@pytest.mark.parametrize(("fault", "code", "status"), BEFORE_CONTENT)
def test_before_the_first_content_a_stream_can_still_fail_with_a_status(
    gateway: GatewayProcess, upstream: ModelServer, fault: str, code: str, status: int
) -> None:
    upstream.script = Script.of(fault)
    answer = post(gateway, "plain", stream=True)  # a later clock would give another code
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    (receipt,) = gateway.receipts(1)
    assert (receipt.outcome, receipt.code, receipt.status) == ("failed", code, status)
    if "429" in fault:
        assert answer.headers["retry-after"] == "7"


@pytest.mark.parametrize(("fault", "code", "status"), BEFORE_CONTENT)
def test_and_a_fallback_answers_instead(
    gateway: GatewayProcess,
    upstream: ModelServer,
    spare: ModelServer,
    fault: str,
    code: str,
    status: int,
) -> None:
    upstream.script = Script.of(fault)
    answer = post(gateway, "rescued", stream=True)
    assert answer.status_code == 200
    assert answer.headers["x-tidegate-model"] == "spare"
    assert text_of(answer) == SPARE_ANSWER
    assert events(answer)[-1] == "[DONE]"
    (receipt,) = gateway.receipts(1)
    assert receipt.model == "spare"
    assert [attempt.code for attempt in receipt.attempts] == [code, None]
    assert len(spare.requests) == 1
    # A kept connection that breaks before the answer counts as stale: one more on a fresh one.
    assert len(upstream.requests) <= (2 if fault == "reset" else 1)


AFTER_CONTENT = [
    ("cut=4", "upstream_cut"),
    ("cut=4 how=reset", "upstream_cut"),
    ("cut=4 how=clean", "upstream_cut"),
    ("stall=4", "upstream_idle_timeout"),
    ("error_event=4", "upstream_cut"),
]


@pytest.mark.parametrize(("fault", "code"), AFTER_CONTENT)
def test_after_content_a_failure_is_told_in_band_and_never_looks_like_an_ending(
    gateway: GatewayProcess, upstream: ModelServer, fault: str, code: str
) -> None:
    upstream.script = Script.of(fault)
    upstream.behaviour = msgspec.structs.replace(upstream.behaviour, inter_token=Constant(0.01))
    answer = post(gateway, "rescued", stream=True)
    assert answer.status_code == 200
    last = events(answer)[-1]
    assert last != "[DONE]"
    assert json.loads(last)["error"]["code"] == code
    assert 'finish_reason":"stop' not in answer.text.replace(" ", "")
    (receipt,) = gateway.receipts(1)
    assert (receipt.outcome, receipt.code) == ("upstream_cut", code)
    assert receipt.usage is not None
    assert receipt.usage.estimated
    assert receipt.cost is not None
    assert receipt.cost > 0


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("status=503", "upstream_error"),
        ("reset", "upstream_cut"),
        ("cut=4", "upstream_cut"),
        ("hang=8s", "upstream_total_timeout"),  # later it would be cut
    ],
)
def test_whole_answers_fail_with_a_status(
    gateway: GatewayProcess, upstream: ModelServer, fault: str, code: str
) -> None:
    upstream.script = Script.of(fault)
    answer = post(gateway, "plain")
    assert answer.status_code in (502, 504)
    assert answer.json()["error"]["code"] == code
    (receipt,) = gateway.receipts(1)
    assert receipt.outcome == "failed"


def test_a_whole_answer_falls_back(gateway: GatewayProcess, upstream: ModelServer) -> None:
    upstream.script = Script.of("status=503")
    answer = post(gateway, "rescued")
    assert answer.json()["choices"][0]["message"]["content"] == SPARE_ANSWER
    (receipt,) = gateway.receipts(1)
    assert [(a.model, a.status) for a in receipt.attempts] == [("small", 503), ("spare", 200)]


def test_a_whole_answer_that_does_not_come_leaves_time_for_the_fallback(
    gateway: GatewayProcess, upstream: ModelServer
) -> None:
    upstream.script = Script.of("hang")
    answer = post(gateway, "rescued")
    assert answer.json()["choices"][0]["message"]["content"] == SPARE_ANSWER
    (receipt,) = gateway.receipts(1)
    assert [attempt.code for attempt in receipt.attempts] == ["upstream_answer_timeout", None]
    assert receipt.cost is None, "the model that hung may bill too, so the whole is unknown"


def test_when_all_fail_the_first_error_is_told(
    gateway: GatewayProcess, upstream: ModelServer, spare: ModelServer
) -> None:
    upstream.script, spare.script = Script.of("status=429"), Script.of("status=500")
    assert post(gateway, "rescued").json()["error"]["code"] == "upstream_rate_limited"


def test_what_the_client_did_wrong_is_not_shopped_elsewhere(
    gateway: GatewayProcess, upstream: ModelServer, spare: ModelServer
) -> None:
    upstream.script = Script.of("status=400 code=content_policy_violation")
    answer = post(gateway, "rescued")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "content_policy_violation")
    assert not spare.requests


def test_a_missing_done_and_odd_usage_are_no_faults(
    gateway: GatewayProcess, upstream: ModelServer
) -> None:
    for fault in ("missing_done", "usage_with_choices"):
        upstream.script = Script.of(fault)
        answer = post(gateway, "plain", stream=True)
        assert text_of(answer) == ANSWER
        assert events(answer)[-1] == "[DONE]"
    receipts = gateway.receipts(2)
    assert all(r.outcome == "served" and r.usage and not r.usage.estimated for r in receipts)


def test_missing_usage_is_estimated_and_marked(
    gateway: GatewayProcess, upstream: ModelServer
) -> None:
    upstream.script = Script.of("no_usage")
    post(gateway, "plain")
    post(gateway, "plain", stream=True)
    for receipt in gateway.receipts(2):
        assert receipt.usage is not None
        assert receipt.usage.estimated
        assert receipt.usage.completion > 4


def test_an_unknown_price_is_null_and_never_zero(gateway: GatewayProcess) -> None:
    post(gateway, "unpriced")
    (receipt,) = gateway.receipts(1)
    assert receipt.usage is not None
    assert receipt.cost is None


def test_an_answer_that_breaks_its_schema_is_no_answer(
    gateway: GatewayProcess, upstream: ModelServer
) -> None:
    whole = post(gateway, "shaped")
    assert (whole.status_code, whole.json()["error"]["code"]) == (502, "output_invalid")
    streamed = post(gateway, "shaped", stream=True)
    assert json.loads(events(streamed)[-1])["error"]["code"] == "output_invalid"
    assert upstream.requests[0].json["response_format"]["type"] == "json_schema"
    receipts = gateway.receipts(2)
    assert [r.code for r in receipts] == ["output_invalid"] * 2
    for receipt in receipts:  # the model's time stays the model's
        assert receipt.stages["call"] > receipt.stages["guard"]


def test_caps_hold_the_output(gateway: GatewayProcess, upstream: ModelServer) -> None:
    post(gateway, "capped")
    post(gateway, "capped", max_completion_tokens=500)
    post(gateway, "capped", max_tokens=3)
    limits = [
        (r.json.get("max_tokens"), r.json.get("max_completion_tokens")) for r in upstream.requests
    ]
    assert limits == [(16, None), (None, 16), (3, None)]


def test_content_is_kept_apart_and_can_be_off(gateway: GatewayProcess) -> None:
    from tidegate.ledger.spool_reader import read_chunk, spool_files

    post(gateway, "private")
    post(gateway, "plain")
    gateway.receipts(2)
    records = [
        record
        for path in spool_files(gateway.runtime.spool)
        for record in read_chunk(path, 0, records=1 << 20, size=1 << 30).records
    ][-2:]
    assert records[0][1:] == (b"", b"")
    assert json.loads(records[1].request)["model"] == "plain"
    assert ANSWER in records[1].response.decode()


class TestClientGone:
    """Given a client that leaves, the upstream is left too and the receipt says so."""

    def leave(self, gateway: GatewayProcess, body: dict[str, Any], after: bytes | None) -> None:
        with gateway.client() as client, client.stream("POST", CHAT, json=body) as answer:
            for chunk in answer.iter_raw():
                if after is None or after in chunk:
                    return

    def test_mid_stream(self, gateway: GatewayProcess, upstream: ModelServer) -> None:
        upstream.script = Script.of("stall=3")
        self.leave(gateway, {"model": "plain", "messages": USER, "stream": True}, None)
        (receipt,) = gateway.receipts(1)
        assert (receipt.outcome, receipt.status) == ("client_gone", 200)
        assert receipt.usage is not None
        assert receipt.usage.estimated
        eventually(lambda: upstream.requests[0].client_closed is not None, 1.0)

    @pytest.mark.parametrize("stream", [True, False])
    def test_before_the_first_byte(
        self, gateway: GatewayProcess, upstream: ModelServer, stream: bool
    ) -> None:
        upstream.script = Script.of("hang")
        body = {"model": "plain", "messages": USER, "stream": stream}
        with gateway.client() as client, pytest.raises(httpx.ReadTimeout):
            client.post(CHAT, json=body, timeout=0.3)
        (receipt,) = gateway.receipts(1)
        assert (receipt.outcome, receipt.status) == ("client_gone", 499)
        assert receipt.cost is None, "the model was asked, so what it cost is unknown"
        eventually(lambda: upstream.requests[0].client_closed is not None, 1.0)
