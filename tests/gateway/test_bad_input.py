"""Whatever a client sends: 4xx with a code and a cure, a receipt, no stack trace."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import psycopg
import pytest

from tests.gateway.app import GatewayProcess
from tidegate.switches import create_key, revoke_key

USER = [{"role": "user", "content": "hello"}]
CHAT = "/v1/chat/completions"

CASES: list[tuple[str, bytes | dict[str, Any], int, str]] = [
    ("not JSON", b"{", 400, "json_malformed"),
    ("empty", b"", 400, "json_malformed"),
    ("not UTF-8", b'{"model": "\xff\xfe"}', 400, "json_malformed"),
    ("a list", b"[]", 400, "request_invalid"),
    ("deeper than any answer", b'{"x":' + b"[" * 30000, 400, "json_malformed"),
    ("model is a number", {"model": 3}, 400, "request_invalid"),
    ("no model", {"messages": USER}, 400, "request_invalid"),
    ("messages is text", {"model": "plain", "messages": "hi"}, 400, "request_invalid"),
    ("a message without a role", {"model": "plain", "messages": [{}]}, 400, "request_invalid"),
    ("no messages", {"model": "plain"}, 400, "messages_missing"),
    ("stream is text", {"model": "plain", "messages": USER, "stream": "y"}, 400, "request_invalid"),
    ("unknown route", {"model": "nowhere", "messages": USER}, 404, "route_unknown"),
    ("an embeddings route", {"model": "embed", "messages": USER}, 400, "route_kind_mismatch"),
    ("input missing", {"model": "plan", "messages": []}, 400, "input_missing"),
    (
        "input of a wrong type",
        {"model": "plan", "messages": [], "tidegate": {"inputs": {"goal": 5}}},
        400,
        "input_invalid",
    ),
    (
        "input that is no choice",
        {"model": "plan", "messages": [], "tidegate": {"inputs": {"goal": "x", "level": "y"}}},
        400,
        "input_invalid",
    ),
    (
        "input that is not declared",
        {"model": "plan", "messages": [], "tidegate": {"inputs": {"goal": "x", "mood": "y"}}},
        400,
        "input_invalid",
    ),
    (
        "inputs without a prompt",
        {"model": "plain", "messages": USER, "tidegate": {"inputs": {"goal": "x"}}},
        400,
        "input_invalid",
    ),
    (
        "a mistyped extension",
        {"model": "plain", "messages": USER, "tidegate": {"input": {}}},
        400,
        "request_invalid",
    ),
    (
        "a prompt above its cap",
        {"model": "capped", "messages": [{"role": "user", "content": "tide " * 200}]},
        400,
        "prompt_too_long",
    ),
    ("an oversized body", b" " * 70_000, 413, "body_too_large"),
]


@pytest.mark.parametrize(
    ("body", "status", "code"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_a_wrong_request_is_told_what_and_how(
    gateway: GatewayProcess, body: bytes | dict[str, Any], status: int, code: str
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with gateway.client() as client:
        answer = client.post(CHAT, content=data)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["cure"]
    assert "Traceback" not in answer.text
    (receipt,) = gateway.receipts(1)
    assert (receipt.status, receipt.code, receipt.outcome) == (status, code, "refused")
    assert receipt.cost == 0
    assert answer.headers["x-request-id"] == receipt.id


def test_keys(gateway: GatewayProcess) -> None:
    with psycopg.connect(gateway.runtime.database_url) as connection:
        doomed = create_key(connection, name="doomed")
    body = {"model": "plain", "messages": USER}
    with gateway.client() as client:
        del client.headers["authorization"]
        missing = client.post(CHAT, json=body)
        wrong = client.post(CHAT, json=body, headers={"authorization": "Basic abc"})
        bearer = {"authorization": f"Bearer {doomed.token}"}
        eventually(lambda: client.post(CHAT, json=body, headers=bearer).status_code == 200)
        with psycopg.connect(gateway.runtime.database_url) as connection:
            revoke_key(connection, doomed.key.id)
        eventually(lambda: client.post(CHAT, json=body, headers=bearer).status_code == 401)
        revoked = client.post(CHAT, json=body, headers=bearer)
        listed = client.get("/v1/models")
    assert missing.json()["error"]["code"] == "key_missing"
    assert wrong.json()["error"]["code"] == "key_missing"
    assert revoked.json()["error"]["code"] == "key_revoked"
    assert listed.status_code == 401
    assert doomed.token not in gateway.log.read_text()


def test_places_and_methods(gateway: GatewayProcess) -> None:
    with gateway.client() as client:
        assert client.get("/v1/nothing").json()["error"]["code"] == "path_unknown"
        assert client.get("/v1/modelsplain").json()["error"]["code"] == "path_unknown"
        assert client.get(CHAT).json()["error"]["code"] == "method_not_allowed"
        assert client.get("/health").json() == {"status": "ok"}
        assert client.get("/ready").json()["release"] == gateway.digest
        gzipped = client.post(CHAT, content=b"x", headers={"content-encoding": "gzip"})
        assert gzipped.json()["error"]["code"] == "encoding_unsupported"
    codes = [receipt.code for receipt in gateway.receipts(4)]
    assert codes == ["path_unknown"] * 2 + ["method_not_allowed", "encoding_unsupported"]


def test_a_body_without_a_length_is_bounded_too(gateway: GatewayProcess) -> None:
    with gateway.client() as client:
        answer = client.post(CHAT, content=(b" " * 4096 for _ in range(40)))
    assert answer.json()["error"]["code"] == "body_too_large"


def test_what_is_no_http_ends_its_connection_only(gateway: GatewayProcess) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as raw:
        raw.sendall(b"\x16\x03\x01\x02\x00hello\r\n\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 400 ")
        assert raw.recv(4096) == b""
    with gateway.client() as client:
        assert client.post(CHAT, json={"model": "plain", "messages": USER}).status_code == 200


def eventually(condition: Any, timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)
