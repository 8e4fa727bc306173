"""A gateway process under attack: by clients in front of it, by upstreams behind it."""

from __future__ import annotations

import gzip
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.gateway.app import GatewayProcess
from tests.gateway.releases import sample_release
from tests.gateway.test_bad_input import CHAT, USER
from tests.gateway.wire.test_http_server import AMBIGUOUS
from tidegate.gateway.wire.http_server import MAX_HEADER_BYTES
from tidegate.testing import ModelServer

FINE = {"model": "plain", "messages": USER}


def say(gateway: GatewayProcess, data: bytes, wait: float = 10.0) -> bytes:
    """What is answered to ``data`` until the gateway closes, or is silent after it has begun."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=wait) as raw:
        answer = b""
        try:
            raw.sendall(data)
            while part := raw.recv(65536):
                answer += part
                raw.settimeout(0.2)
        except (TimeoutError, ConnectionError):
            pass
        return answer


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def post(gateway: GatewayProcess, body: bytes, *headers: bytes) -> bytes:
    lines = [b"POST /v1/chat/completions HTTP/1.1", b"host: t", *headers]
    lines += [b"authorization: Bearer " + gateway.key.encode()]
    return b"\r\n".join([*lines, b"content-length: %d" % len(body), b"", body])


# -- clients --------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", AMBIGUOUS, ids=range(len(AMBIGUOUS)))
def test_nothing_is_smuggled(gateway: GatewayProcess, upstream: ModelServer, data: bytes) -> None:
    """What two programs may read differently: one answer, and no second request is seen."""
    answer = say(gateway, data)
    (status,) = statuses(answer)
    assert status in (400, 404, 405, 413)
    assert len(gateway.receipts()) <= 1
    assert not upstream.requests


def test_a_body_that_looks_like_a_request_is_a_body(gateway: GatewayProcess) -> None:
    inner = post(gateway, json.dumps(FINE).encode())
    assert statuses(say(gateway, post(gateway, inner))) == [400]
    (receipt,) = gateway.receipts(1)
    assert receipt.code == "json_malformed"


def test_what_is_left_of_a_refused_request_is_not_read_as_the_next(
    gateway: GatewayProcess, upstream: ModelServer
) -> None:
    inner = post(gateway, json.dumps(FINE).encode())
    body = b" " * (1 << 20) + inner
    answer = say(gateway, post(gateway, body))
    assert statuses(answer) == [413]
    assert not upstream.requests


def test_pipelined_requests_are_each_answered_once_in_their_order(gateway: GatewayProcess) -> None:
    good = post(gateway, json.dumps(FINE).encode())
    bad = post(gateway, b"{")
    assert statuses(say(gateway, good + bad + good)) == [200, 400, 200]


@pytest.mark.parametrize(
    "line",
    [b"x: " + b"a" * MAX_HEADER_BYTES, b"\r\n".join(b"x%d: y" % n for n in range(6000))],
    ids=["one", "many"],
)
def test_large_headers_are_refused(gateway: GatewayProcess, line: bytes) -> None:
    assert statuses(say(gateway, post(gateway, b"{}", line))) == [431]


def test_a_packed_body_is_not_unpacked(gateway: GatewayProcess) -> None:
    """A gigabyte in a megabyte, were it unpacked."""
    bomb = gzip.compress(b"\0" * (32 << 20), 9)
    assert len(bomb) < 65536
    with gateway.client() as client:
        for coding in ("gzip", "deflate", "br", "zstd", "gzip, gzip", "x"):
            answer = client.post(CHAT, content=bomb, headers={"content-encoding": coding})
            assert (answer.status_code, answer.json()["error"]["code"]) == (
                415,
                "encoding_unsupported",
            )


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":['])
@pytest.mark.parametrize("where", [b'{"model":"plain","x":%b', b'{"model":"plain","messages":%b'])
def test_json_that_is_deeper_than_any_is_refused(
    gateway: GatewayProcess, opening: bytes, where: bytes
) -> None:
    with gateway.client() as client:
        answer = client.post(CHAT, content=where % (opening * (60_000 // len(opening))))
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] in ("json_malformed", "request_invalid")


def test_of_names_that_are_there_twice_the_upstream_sees_what_was_looked_at(
    gateway: GatewayProcess, upstream: ModelServer
) -> None:
    """The cap of the route is 16; an upstream that takes the first of two must see no other."""
    messages = json.dumps(USER)
    body = '{"model":"plain","model":"capped","max_tokens":9999,"max_tokens":5,"messages":%s}'
    with gateway.client() as client:
        assert client.post(CHAT, content=(body % messages).encode()).status_code == 200
        twin = '{"model":"capped","Max_Tokens":9999,"messages":%s}' % messages  # noqa: UP031
        assert client.post(CHAT, content=twin.encode()).json()["error"]["code"] == "request_invalid"
    (request,) = upstream.requests
    pairs = json.loads(request.body, object_pairs_hook=list)
    assert [value for name, value in pairs if name == "max_tokens"] == [5]
    assert [name for name, _ in pairs].count("model") == 1


@pytest.mark.parametrize("sign", ["\r\n", "\n", "\r", "\0"])
def test_no_value_of_a_client_becomes_a_header(gateway: GatewayProcess, sign: str) -> None:
    evil = f"x{sign}x-evil: 1{sign}{sign}HTTP/1.1 200 OK{sign}"
    answers = b""
    with gateway.client() as client:
        for body in (
            {"model": evil, "messages": USER},
            {"model": "plan", "messages": [], "tidegate": {"inputs": {evil: "x"}}},
            {**FINE, evil: 1},
            {**FINE, "tidegate": {"journey": evil}},
            {**FINE, "user": evil, "tools": evil},
        ):
            answer = client.post(CHAT, json=body)
            answers += b"".join(b"%b: %b\n" % item for item in answer.headers.raw)
    escaped = (
        evil.replace("\r", "%0d").replace("\n", "%0a").replace("\0", "%00").replace(" ", "%20")
    )
    raw = say(gateway, f"GET /{escaped} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
    raw += say(gateway, f"GET /v1/models/{escaped} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
    assert len(statuses(raw)) == 2
    assert b"x-evil" not in answers
    assert not re.search(rb"^x-evil", raw, re.MULTILINE)


# -- upstreams ------------------------------------------------------------------------------------


class Hostile(BaseHTTPRequestHandler):
    """A provider that means harm. What it does stands in the message."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.server.asked += 1  # type: ignore[attr-defined]
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.close_connection = True
        try:
            ATTACKS[asked["messages"][-1]["content"]](self.wfile.write, self.server.server_port)
        except ConnectionError:
            pass

    def do_GET(self) -> None:
        self.server.asked += 1000  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: Any) -> None: ...


Write = Callable[[bytes], Any]
HEAD = b"HTTP/1.1 200 OK\r\n"
EVENTS = HEAD + b"content-type: text/event-stream\r\n\r\n"
JSON = HEAD + b"content-type: application/json\r\n"
DELTA = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
BLOCK = b"a" * 65536


def endless(write: Write, start: bytes, again: bytes) -> None:
    write(start)
    for _ in range((512 << 20) // len(again)):
        write(again)


PACKED = gzip.compress(b"[" * (64 << 20), 1)


def bomb(write: Write, _: int) -> None:
    write(JSON + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(PACKED) + PACKED)


def redirect(write: Write, port: int) -> None:
    there = b"http://127.0.0.1:%d/v1/chat/completions" % port
    write(b"HTTP/1.1 307 Go\r\nlocation: %b\r\ncontent-length: 0\r\n\r\n" % there)


ATTACKS: dict[str, Callable[[Write, int], None]] = {
    "bomb": bomb,
    "redirect": redirect,
    "endless headers": lambda write, _: endless(write, HEAD, b"x: %b\r\n" % BLOCK),
    "an endless header": lambda write, _: endless(write, HEAD + b"x: ", BLOCK),
    "endless hints": lambda write, _: endless(
        write, b"", b"HTTP/1.1 103 Hint\r\nx: y\r\n\r\n" * 999
    ),
    "an endless body": lambda write, _: endless(write, JSON + b"\r\n", BLOCK),
    "an endless line": lambda write, _: endless(write, EVENTS + DELTA + b"data: ", BLOCK),
    "endless pings": lambda write, _: endless(write, EVENTS, b": ping\n\n" * 999),
    "deep": lambda write, _: write(JSON + b"\r\n" + b'{"choices":' + b"[" * 500_000),
    "two lengths": lambda write, _: write(
        JSON + b"content-length: 2\r\ncontent-length: 9\r\n\r\n{}HTTP/1.1 200 OK"
    ),
}


@pytest.fixture(scope="module")
def hostile() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("streamed", [False, True])
def test_an_upstream_that_means_harm_costs_its_own_request(
    besieged: tuple[GatewayProcess, ThreadingHTTPServer], attack: str, streamed: bool
) -> None:
    gateway, server = besieged
    gateway.forget()
    server.asked = 0  # type: ignore[attr-defined]
    body = {"model": "plain", "messages": [{"role": "user", "content": attack}], "stream": streamed}
    with gateway.client() as client:
        answer = client.post(CHAT, json=body)
    if answer.status_code == 200:
        assert streamed
        assert b'"error"' in answer.content, "half a stream is told as such"
        assert b"[DONE]" not in answer.content or b'"error"' in answer.content
    else:
        assert answer.status_code in (502, 504)
        assert answer.json()["error"]["code"].startswith("upstream_")
    assert server.asked == 1, "neither followed elsewhere nor asked again"  # type: ignore[attr-defined]
    (receipt,) = gateway.receipts(1)
    assert receipt.code is not None
    assert gateway.process is not None
    workers = psutil.Process(gateway.process.pid).children()
    assert workers
    assert max(worker.memory_info().rss for worker in workers) < 256 << 20, (
        "what was given up is let go"
    )
    with gateway.client() as client:
        assert client.get("/ready").status_code == 200


@pytest.fixture(scope="module")
def besieged(
    hostile: ThreadingHTTPServer,
    tmp_path_factory: pytest.TempPathFactory,
    shared_gateway: GatewayProcess,
) -> Iterator[tuple[GatewayProcess, ThreadingHTTPServer]]:
    """A gateway whose one model is served by the hostile provider."""
    release = sample_release(f"http://127.0.0.1:{hostile.server_port}/v1")
    folder: Path = tmp_path_factory.mktemp("besieged")
    stores = shared_gateway.runtime
    gateway = GatewayProcess(folder, release, stores.database_url, stores.valkey_url)
    try:
        yield gateway.start(), hostile
    finally:
        gateway.stop()
