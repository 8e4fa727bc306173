"""The operator's door: only with its token, never losing spans, telling what the ledger tells."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.ledger.filled import fill
from tests.ledger.samples import make_receipt, spool
from tests.ledger.test_otlp import as_json, make_request
from tests.ports import free_port
from tidegate.base.runtime import Runtime, write_runtime
from tidegate.console.run import make_app
from tidegate.console.traces import SpanInbox
from tidegate.ledger.otlp import LARGEST_BODY, PROTOBUF
from tidegate.ledger.run import connect
from tidegate.ledger.spool_reader import read_chunk, spool_files
from tidegate.ledger.status import LedgerStatus, write_status

TOKEN = "operator-token-of-the-test"
AUTH = {"authorization": f"Bearer {TOKEN}"}
NOWHERE = "postgresql://tidegate@127.0.0.1:1/none"


def make_state(tmp_path: Path, url: str = NOWHERE) -> Path:
    state = tmp_path / ".tidegate"
    write_runtime(
        Runtime(
            app=str(tmp_path),
            state=str(state),
            pid=os.getpid(),
            release="sha256:" + "0" * 64,
            database_url=url,
            valkey_url="unix:///none",
            gateway_url="http://127.0.0.1:1",
            operator_url="http://127.0.0.1:2",
            operator_token=TOKEN,
        )
    )
    return state


def ask(state: Path, method: str, path: str, **more: Any) -> httpx.Response:
    """One request to the door, in this process."""
    more.setdefault("headers", AUTH)
    inbox = more.pop("inbox", None)

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(make_app(state, inbox))
        async with httpx.AsyncClient(transport=transport, base_url="http://door") as client:
            return await client.request(method, path, **more)

    return asyncio.run(send())


@pytest.mark.parametrize("path", ["/metrics", "/api/profile", "/api/receipts", "/nothing"])
@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "operator_token_missing"),
        ("Basic abc", "operator_token_missing"),
        ("Bearer ", "operator_token_missing"),
        ("Bearer wrong", "operator_token_wrong"),
        (f"Bearer {TOKEN}x", "operator_token_wrong"),
    ],
)
def test_nothing_is_told_without_the_token(
    tmp_path: Path, path: str, header: str | None, code: str
) -> None:
    headers = {} if header is None else {"authorization": header}
    answer = ask(make_state(tmp_path), "GET", path, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == code
    assert answer.headers["www-authenticate"] == "Bearer"


def test_no_websocket_gets_past_the_token(tmp_path: Path) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/metrics", "headers": [], "query_string": b""}
    asyncio.run(make_app(make_state(tmp_path), None)(scope, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_health_is_open_and_spans_are_not(tmp_path: Path) -> None:
    state = make_state(tmp_path)
    assert ask(state, "GET", "/health", headers={}).json()["status"] == "ok"
    assert ask(state, "POST", "/v1/traces", headers={}, content=b"").status_code == 401
    assert not spool_files(state / "spans")


@pytest.mark.parametrize(
    ("age", "reason", "health"),
    [(0, None, "ok"), (0, "disk full", "degraded"), (60, None, "degraded")],
)
def test_health_believes_only_a_loader_that_still_reports(
    tmp_path: Path, age: float, reason: str | None, health: str
) -> None:
    """A loader on a full disk can no longer write that it is degraded; its last word was 'well'."""
    state = make_state(tmp_path)
    at = time.time() - age
    said = LedgerStatus(pid=1, at=at, level_at=at, behind_bytes=0, degraded=reason)
    write_status(state, said)
    told = ask(state, "GET", "/health", headers={}).json()
    assert told == {"status": health, "ledger_degraded": health == "degraded"}


def test_before_the_app_is_up_the_door_says_so(tmp_path: Path) -> None:
    answer = ask(tmp_path / ".tidegate", "GET", "/metrics")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_running")


def test_wrong_paths_and_methods_have_codes(tmp_path: Path) -> None:
    state = make_state(tmp_path)
    missing = ask(state, "GET", "/api/nothing")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "path_unknown")
    wrong = ask(state, "GET", "/v1/traces")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")


def spooled(state: Path) -> list[str]:
    names = []
    for path in spool_files(state / "spans"):
        for record in read_chunk(path, 0, records=100, size=1 << 20).records:
            names += [span["name"] for span in json.loads(record.receipt)["spans"]]
    return names


def test_spans_are_on_disk_before_they_are_acknowledged_whatever_the_database_does(
    tmp_path: Path,
) -> None:
    state = make_state(tmp_path)
    body = make_request(2).SerializeToString()
    answer = ask(
        state,
        "POST",
        "/v1/traces",
        content=gzip.compress(body),
        headers={**AUTH, "content-type": PROTOBUF, "content-encoding": "gzip"},
    )
    assert answer.status_code == 200
    assert ExportTraceServiceResponse.FromString(answer.content).partial_success.rejected_spans == 0
    assert spooled(state) == ["get plan 训练"] * 2


def test_json_is_answered_in_json_with_what_was_left_out(tmp_path: Path) -> None:
    state = make_state(tmp_path)
    message = json.loads(as_json(make_request(2)))
    message["resourceSpans"][0]["scopeSpans"][0]["spans"][1]["traceId"] = "00" * 16
    answer = ask(state, "POST", "/v1/traces", json=message)
    assert answer.json()["partialSuccess"]["rejectedSpans"] == "1"
    assert len(spooled(state)) == 1


@pytest.mark.parametrize(
    ("status", "content", "kind", "code"),
    [
        (400, b"\xff\xff", PROTOBUF, b"otlp_malformed"),
        (400, b"{", "application/json", b"otlp_malformed"),
        (415, b"", "text/plain", b"otlp_media_type"),
        (413, b"x" * (LARGEST_BODY + 1), PROTOBUF, b"otlp_too_large"),
    ],
)
def test_bad_spans_are_refused_with_a_code(
    tmp_path: Path, status: int, content: bytes, kind: str, code: bytes
) -> None:
    state = make_state(tmp_path)
    answer = ask(
        state, "POST", "/v1/traces", content=content, headers={**AUTH, "content-type": kind}
    )
    assert answer.status_code == status
    assert code in answer.content
    assert spooled(state) == []


def test_a_full_span_spool_asks_exporters_to_wait(tmp_path: Path) -> None:
    state = make_state(tmp_path)
    inbox = SpanInbox(state / "spans", most_backlog=100)
    headers = {**AUTH, "content-type": PROTOBUF}
    body = make_request().SerializeToString()
    send = {"content": body, "headers": headers, "inbox": inbox}
    assert ask(state, "POST", "/v1/traces", **send).status_code == 200
    inbox._looked = float("-inf")
    answer = ask(state, "POST", "/v1/traces", **send)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert b"span_backlog_full" in answer.content


def test_spans_that_do_not_reach_the_disk_are_not_acknowledged(tmp_path: Path) -> None:
    state = make_state(tmp_path)
    inbox = SpanInbox(state / "spans")
    (state / "spans").rmdir()  # as a disk that takes nothing more
    headers = {**AUTH, "content-type": PROTOBUF}
    body = make_request().SerializeToString()
    for _ in range(2):
        answer = ask(state, "POST", "/v1/traces", content=body, headers=headers, inbox=inbox)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert b"span_spool_unwritable" in answer.content
    (state / "spans").mkdir()
    answer = ask(state, "POST", "/v1/traces", content=body, headers=headers, inbox=inbox)
    assert answer.status_code == 200
    assert spooled(state)


def test_the_api_tells_what_the_ledger_tells(tmp_path: Path, database_url: str) -> None:
    state = make_state(tmp_path, database_url)
    with connect(database_url) as connection:
        fill(state, connection, count=20)
    told = ask(state, "GET", "/api/profile?window=1h&journey=get-plan").json()
    assert [(p["name"], p["count"]) for p in told["journeys"]] == [("get-plan", 15)]
    receipts = ask(state, "GET", "/api/receipts?limit=5&status=2xx").json()["receipts"]
    assert len(receipts) == 5
    whole = ask(state, "GET", f"/api/receipts/{receipts[0]['id']}").json()
    assert (whole["receipt"], whole["request"]) == (receipts[0], None)
    whole = ask(state, "GET", f"/api/receipts/{receipts[0]['id']}?content=1").json()
    assert whole["response"] == '{"a":"ja"}'


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/profile?window=soon", 400, "window_invalid"),
        ("/api/profile?window=9999d", 400, "window_invalid"),
        ("/api/profile?journey=x", 404, "journey_unknown"),
        ("/api/receipts?limit=-1", 400, "limit_invalid"),
        ("/api/receipts?limit=99999999999999999999", 400, "limit_invalid"),
        ("/api/receipts?status=x", 400, "status_invalid"),
        ("/api/receipts?route=%00", 400, "value_invalid"),
        ("/api/receipts/ffffffffff", 404, "receipt_unknown"),
        ("/api/receipts/..%2f..", 404, "path_unknown"),
    ],
)
def test_bad_questions_have_a_code(
    tmp_path: Path, database_url: str, path: str, status: int, code: str
) -> None:
    answer = ask(make_state(tmp_path, database_url), "GET", path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_questions_while_postgres_is_away_are_refused_and_metrics_are_not(tmp_path: Path) -> None:
    state = make_state(tmp_path)
    spool(state / "spool", [make_receipt()]).close()
    answer = ask(state, "GET", "/api/profile")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "database_unreachable")
    lines = ask(state, "GET", "/metrics").text.splitlines()
    assert "tidegate_ledger_up 0" in lines
    assert "tidegate_loader_up 0" in lines
    assert int(next(x for x in lines if x.startswith("tidegate_spool_backlog")).split()[1]) > 100


@pytest.fixture
def door(tmp_path: Path, database_url: str) -> Iterator[tuple[Path, str]]:
    """State folder and URL of a door and a loader that run as processes of their own."""
    state, port = make_state(tmp_path, database_url), free_port()
    environment = {k: v for k, v in os.environ.items() if k != "TIDEGATE_DATABASE_URL"}
    started = [
        subprocess.Popen([sys.executable, "-m", *arguments], env=environment)
        for arguments in (
            ["tidegate.ledger", "--state", str(state)],
            ["tidegate.console", "--state", str(state), "--port", str(port)],
        )
    ]
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: health(url))
        yield state, url
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        loader, console = (process.wait(15) for process in started)
        assert loader == 0
        assert console in (0, -signal.SIGTERM)  # uvicorn raises the signal again when it is done


def health(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").is_success
    except httpx.TransportError:
        return False


def wait_for(reached: Callable[[], Any], seconds: float = 20.0) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := reached():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def record_journey() -> tuple[ReadableSpan, ...]:
    """What an app makes with plain OpenTelemetry: a journey with two stages."""
    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("app")
    with tracer.start_as_current_span("plan", attributes={"tidegate.journey": "get-plan"}):
        with tracer.start_as_current_span("p", attributes={"tidegate.stage": "prompt"}):
            time.sleep(0.01)
        with tracer.start_as_current_span("m", attributes={"tidegate.stage": "model"}):
            time.sleep(0.03)
    return kept.get_finished_spans()


def test_spans_of_opentelemetry_and_a_receipt_become_a_journey_by_themselves(
    door: tuple[Path, str],
) -> None:
    state, url = door
    spans = record_journey()
    model = next(span for span in spans if span.name == "m")
    context = model.get_span_context()
    assert context is not None
    receipt = make_receipt(
        trace=f"{context.trace_id:032x}",
        parent=f"{context.span_id:016x}",
        journey="get-plan",
        stages={"admit": 0.5, "call": 20.0},
    )
    writer = spool(state / "spool", [receipt])
    body = encode_spans(spans).SerializeToString()
    sent = httpx.post(f"{url}/v1/traces", content=body, headers={**AUTH, "content-type": PROTOBUF})
    assert sent.is_success

    def told() -> Any:
        return httpx.get(f"{url}/api/profile", headers=AUTH).json()["journeys"]

    (journey,) = wait_for(told)
    stages = {(s["stage"], s["within"]): s["times"]["p50"] for s in journey["stages"]}
    assert set(stages) == {
        ("prompt", None),
        ("model", None),
        ("admit", "model"),
        ("call", "model"),
        ("other", None),
    }
    assert 30 <= stages["model", None] < journey["times"]["p50"] * 1.02
    text = httpx.get(f"{url}/metrics", headers=AUTH).text
    assert 'tidegate_requests_total{route="recommend",outcome="served"} 1' in text
    assert 'tidegate_journeys_total{journey="get-plan"} 1' in text
    assert "tidegate_ledger_up 1" in text
    assert "tidegate_loader_up 1" in text
    writer.close()


def test_an_operator_token_is_read_again_when_the_app_restarts(tmp_path: Path) -> None:
    state = make_state(tmp_path)
    app = make_app(state)

    async def send() -> list[int]:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://door"
        ) as client:
            codes = [(await client.get("/metrics", headers=AUTH)).status_code]
            path = state / "run" / "runtime.json"
            other = msgspec.json.decode(path.read_bytes())
            path.write_bytes(msgspec.json.encode({**other, "operator_token": "another"}))
            codes.append((await client.get("/metrics", headers=AUTH)).status_code)
            return codes

    assert asyncio.run(send()) == [200, 401]
