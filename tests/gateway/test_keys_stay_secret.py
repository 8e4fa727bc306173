"""The keys of clients, of providers and of the operator are in no place where they need not be."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import psycopg
import pytest

from tests.gateway.app import GatewayProcess
from tests.gateway.releases import sample_release
from tests.ports import free_port
from tidegate.base.runtime import Runtime, write_runtime
from tidegate.stores.valkey_client import ValkeyClient
from tidegate.switches import create_key
from tidegate.switches.rules import KeyRecord, KeyTable, token_hash

CHAT = "/v1/chat/completions"
PROVIDER_KEY = "sk-provider-7Qd2xV0mJ9fKc3Wb8Zt5"
OPERATOR_TOKEN = "operator-4Hs8Lp1Yv6Ng2Xe9Ra7T"
DELTA = {"id": "1", "choices": [{"index": 0, "delta": {"content": "half"}, "finish_reason": None}]}
ANSWER = {
    "id": "1",
    "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1},
}


class Parrot(BaseHTTPRequestHandler):
    """A provider that repeats the key it was given, wherever it can. What it is to do stands in
    the message."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        key = self.headers.get("authorization", "").removeprefix("Bearer ")
        assert key == PROVIDER_KEY
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        what = asked["messages"][-1]["content"]
        error = {"error": {"message": f"no {key} here", "type": key, "code": key}}
        match what:
            case "fine":
                self._answer(200, "application/json", json.dumps(ANSWER))
            case "streamed error":
                events = f"data: {json.dumps(DELTA)}\n\ndata: {json.dumps(error)}\n\n"
                self._answer(200, "text/event-stream", events)
            case "early error":
                self._answer(200, "text/event-stream", f"data: {json.dumps(error)}\n\n")
            case "no stream":
                self._answer(200, f"text/{key}", "?")
            case "no JSON":
                self._answer(200, "application/json", key)
            case status:
                self._answer(int(status), "application/json", json.dumps(error))

    def _answer(self, status: int, kind: str, body: str) -> None:
        self.send_response(status, "No")
        self.send_header("content-type", kind)
        self.send_header("retry-after", f"9; {PROVIDER_KEY}")
        self.send_header("x-key", PROVIDER_KEY)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None: ...


@contextmanager
def parrot() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Parrot)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def forms_of(secret: str) -> list[bytes]:
    """How a secret may stand somewhere: plain, in hex (as bytea is shown), in base64."""
    raw = secret.encode()
    return [raw, raw.hex().encode(), base64.b64encode(raw)[:-4]]


def leaks(data: bytes, secrets: dict[str, str]) -> list[str]:
    return [name for name, key in secrets.items() if any(form in data for form in forms_of(key))]


@pytest.fixture
def app(tmp_path: Path, database_url: str, valkey_url: str) -> Iterator[GatewayProcess]:
    """A gateway whose one model is served by the parrot and has a key in a file of its own."""
    with parrot() as url:
        release = sample_release(url)
        keyed = msgspec.structs.replace(release.models["small"], keys="secret:large")
        release = msgspec.structs.replace(release, models={**release.models, "small": keyed})
        gateway = GatewayProcess(tmp_path, release, database_url, valkey_url)
        gateway.runtime = msgspec.structs.replace(gateway.runtime, operator_token=OPERATOR_TOKEN)
        write_runtime(gateway.runtime)
        file = gateway.state / "secrets" / "large"
        file.parent.mkdir()
        file.write_text(PROVIDER_KEY + "\n")
        file.chmod(0o600)
        try:
            yield gateway.start()
        finally:
            gateway.stop()


def ask_everything(gateway: GatewayProcess, revoked: str) -> bytes:
    """Good calls, every way of failing, and keys where keys do not belong; all that was answered,
    headers included."""
    told = b""
    with gateway.client() as client:

        def keep(answer: httpx.Response) -> None:
            nonlocal told
            told += str(answer.status_code).encode() + b" "
            told += b"".join(b"%b: %b\n" % item for item in answer.headers.raw) + answer.content

        for what in ("fine", "streamed error", "early error", "no stream", "no JSON", "400", "401",
                     "402", "404", "422", "429", "500", "503", "302"):  # fmt: skip
            for stream in (False, True):
                body = {"model": "plain", "messages": [{"role": "user", "content": what}]}
                keep(client.post(CHAT, json={**body, "stream": stream}))
        for n, what in enumerate(("fine", "400", "422", "streamed error")):
            body = {"model": "plain", "messages": [{"role": "user", "content": what}]}
            for _ in range(2):  # the outcome is kept, refusals too
                keep(client.post(CHAT, json=body, headers={"idempotency-key": f"key-{n}"}))
        body = {"model": "plan", "messages": [{"role": "user", "content": "fine"}]}
        for _ in range(2):  # into the cache and out of it
            keep(client.post(CHAT, json={**body, "tidegate": {"inputs": {"goal": "run"}}}))
        key = gateway.key
        keep(client.post(CHAT, json=body, headers={"authorization": f"Bearer {revoked}"}))
        keep(client.post(CHAT, json=body, headers={"authorization": f"Bearer {key}x"}))
        keep(client.post(CHAT, json=body, headers={"authorization": f"Basic {key}"}))
        keep(client.post(CHAT, json=body, headers={"x-api-key": key, "baggage": f"a={key}"}))
        keep(client.post(f"{CHAT}?api_key={key}", json={"model": "nowhere", "messages": []}))
        keep(client.post(CHAT, content=b"{"))
        keep(client.get("/v1/models"))
        keep(client.get("/ready"))
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as raw:
        raw.sendall(
            b"GET / HTTP/1.1\r\nauthorization: Bearer %b\r\nbad header\r\n\r\n" % key.encode()
        )
        while part := raw.recv(65536):
            told += part
    return told


@contextmanager
def parts(gateway: GatewayProcess) -> Iterator[tuple[str, list[int]]]:
    """Loader and operator's door beside the gateway: URL of the door, and every process."""
    port, started = free_port(), []
    log = (gateway.state / "parts.log").open("wb")
    for arguments in (["ledger"], ["console", "--port", str(port)]):
        line = ["-m", f"tidegate.{arguments[0]}", "--state", str(gateway.state), *arguments[1:]]
        started.append(subprocess.Popen([sys.executable, *line], stdout=log, stderr=log))
    assert gateway.process is not None
    pids = [gateway.process.pid, *(process.pid for process in started)]
    try:
        yield f"http://127.0.0.1:{port}", pids
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(15)
        log.close()


def everything_in(database_url: str) -> bytes:
    """Every row of every table, as text."""
    out = b""
    with psycopg.connect(database_url) as connection:
        tables = connection.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        assert len(tables) > 5
        for (table,) in tables:
            with connection.cursor().copy(f"COPY (SELECT * FROM {table}) TO STDOUT") as copy:
                out += b"".join(bytes(part) for part in copy)
    return out


READS: dict[bytes, tuple[bytes, ...]] = {
    b"string": (b"GET",), b"hash": (b"HGETALL",), b"set": (b"SMEMBERS",),
}  # fmt: skip
RANGES = {b"list": b"LRANGE", b"zset": b"ZRANGE"}


def everything_kept(valkey_url: str) -> bytes:
    """Every key of Valkey with its value."""

    async def main() -> bytes:
        client = ValkeyClient(valkey_url, deadline=5.0)
        await client.start()
        try:
            out = b""
            for name in await client.call("KEYS", "*"):
                kind = await client.call("TYPE", name)
                kind = kind.encode() if isinstance(kind, str) else kind
                if kind in READS:
                    value = await client.call(*READS[kind], name)
                else:
                    value = await client.call(RANGES[kind], name, 0, -1)
                parts = value if isinstance(value, list) else [value]
                out += name + b" ".join(str(p).encode() if not isinstance(p, bytes) else p
                                        for p in parts)  # fmt: skip
            return out
        finally:
            await client.stop()

    return asyncio.run(main())


def spans_in(runtime: Runtime) -> int:
    with psycopg.connect(runtime.database_url) as connection:
        (row,) = connection.execute("SELECT count(*) FROM spans").fetchall()
        return int(row[0])


def a_trace_with(secrets: dict[str, str]) -> Any:
    """A span as an app makes it whose instrumentation keeps too much."""

    def pairs(prefix: str) -> list[Any]:
        return [
            {"key": f"{prefix}{n}", "value": {"stringValue": f"Bearer {secret}"}}
            for n, secret in enumerate(secrets.values())
        ]

    span = {
        "traceId": "ab" * 16, "spanId": "cd" * 8, "name": "call",
        "startTimeUnixNano": str(time.time_ns()), "endTimeUnixNano": str(time.time_ns() + 1000),
        "attributes": [*pairs("http.request.header.authorization."), *pairs("openai.api_key")],
        "events": [{"name": "exception", "attributes": pairs("exception.message")}],
        "status": {"code": 2, "message": " ".join(secrets.values())},
    }  # fmt: skip
    scope = {"scope": {"name": "x", "attributes": pairs("a")}, "spans": [span]}
    return {"resourceSpans": [{"resource": {"attributes": pairs("r")}, "scopeSpans": [scope]}]}


def test_no_key_is_where_it_need_not_be(app: GatewayProcess, tmp_path: Path) -> None:
    runtime = app.runtime
    with psycopg.connect(runtime.database_url) as connection:
        revoked = create_key(connection, name="doomed").token
        connection.execute("UPDATE keys SET revoked_at = now() WHERE name = 'doomed'")
    secrets = {
        "the client's key": app.key,
        "the secret part of the client's key": app.key.split("-", 2)[2],
        "a revoked key": revoked,
        "the provider's key": PROVIDER_KEY,
        "the operator's token": OPERATOR_TOKEN,
    }
    places = {"what clients were answered": ask_everything(app, revoked)}
    asked = len(app.receipts(30, timeout=10))
    assert asked > 30

    with parts(app) as (door, pids):
        headers = {"authorization": f"Bearer {OPERATOR_TOKEN}"}
        pages = b""
        deadline = time.monotonic() + 30
        traced = False
        while True:  # until the loader has brought them in
            try:
                if not traced:
                    trace = a_trace_with(secrets)
                    sent = httpx.post(f"{door}/v1/traces", json=trace, headers=headers, timeout=10)
                    traced = sent.status_code == 200
                listed = httpx.get(f"{door}/api/receipts?limit=200", headers=headers, timeout=10)
                if len(listed.json().get("receipts", ())) >= asked and spans_in(runtime):
                    break
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline
            time.sleep(0.1)
        for receipt in listed.json()["receipts"]:
            path = f"/api/receipts/{receipt['id']}?content=1"
            pages += httpx.get(door + path, headers=headers, timeout=10).content
        for path in ("/metrics", "/api/profile?window=1h", "/health", "/api/receipts?limit=200"):
            pages += httpx.get(door + path, headers=headers, timeout=10).content
        for wrong in (f"Bearer {app.key}", f"Bearer {OPERATOR_TOKEN}x", f"Basic {OPERATOR_TOKEN}"):
            pages += httpx.get(f"{door}/metrics", headers={"authorization": wrong}).content
        places["pages of the operator's door"] = pages
        lines = b""
        for pid in pids:
            process = psutil.Process(pid)
            for one in (process, *process.children(recursive=True)):
                lines += Path(f"/proc/{one.pid}/cmdline").read_bytes()
                assert app.key.encode() not in Path(f"/proc/{one.pid}/environ").read_bytes()
        assert lines.count(b"tidegate.gateway") >= 1
        places["command lines, as ps shows them"] = lines

    places["PostgreSQL"] = everything_in(runtime.database_url)
    places["Valkey"] = everything_kept(runtime.valkey_url)
    assert b"fine" in places["PostgreSQL"] or b"fine".hex().encode() in places["PostgreSQL"]
    assert places["Valkey"]
    (tmp_path / "tidegate.yaml").write_text("app: sample\n")
    environment = {**os.environ, "TIDEGATE_DATABASE_URL": runtime.database_url}
    for arguments in (["keys", "list"], ["receipts"], ["receipts", "--json"], ["profile"]):
        line = [sys.executable, "-c", "from tidegate.cli.main import main; main()", *arguments]
        done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr
        places[f"tidegate {' '.join(arguments)}"] = done.stdout + done.stderr
    app.stop()
    for path in sorted(app.state.rglob("*")):
        held = path.relative_to(app.state).as_posix()
        if path.is_file() and held not in ("secrets/large", "run/runtime.json"):
            places[held] = path.read_bytes()
    assert any(name.endswith(".spool") for name in places)
    assert any(name.endswith("gateway.log") for name in places)
    found = {place: names for place, data in places.items() if (names := leaks(data, secrets))}
    assert found == {}
    for private in ("secrets/large", "run/runtime.json", "run/switches.json"):
        assert (app.state / private).stat().st_mode & 0o077 == 0, private


def test_only_the_hash_of_a_key_is_at_rest(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        made = create_key(connection, name="k")
        (row,) = connection.execute("SELECT hash FROM keys").fetchall()
    assert bytes(row[0]) == token_hash(made.token)
    assert made.token not in repr(made)
    assert leaks(everything_in(database_url), {"key": made.token}) == []


def test_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole digests, by ``hmac.compare_digest``, also where the first byte is another."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return a == b

    monkeypatch.setattr("tidegate.switches.rules.hmac.compare_digest", compare)
    token = "tg-" + "0" * 12 + "-" + "x" * 43
    record = KeyRecord(id="0" * 12, name="k", hash=token_hash(token))
    table = KeyTable((record,))
    assert table.find(token, 0.0) == record
    assert table.find(token[:-1] + "y", 0.0) == "key_invalid"
    assert [len(a) == len(b) == 32 for a, b in compared] == [True, True]
    assert all(b == record.hash for _, b in compared)
