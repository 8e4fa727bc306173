"""A real OTLP receiver and a real OpenAI-shaped server, each a small HTTP server on loopback."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tidegate import sdk
from tidegate.sdk import run


def eventually(what: Callable[[], object], seconds: float = 8.0) -> None:
    """Wait until ``what`` is true; fail with its last value when it never is."""
    end = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < end, f"never came true: {value!r}"
        time.sleep(0.02)


@dataclass
class Door:
    """What came in at the operator's door, and how it answers."""

    url: str = ""
    token: str = "right"
    status: int = 200
    delay: float = 0.0
    """Seconds until it answers."""
    posts: int = 0
    answered: int = 0
    refused: int = 0
    services: set[str] = field(default_factory=set)
    spans: list[Span] = field(default_factory=list)

    def named(self, name: str) -> list[Span]:
        return [span for span in list(self.spans) if span.name == name]

    def one(self, name: str) -> Span:
        eventually(lambda: self.named(name))
        (span,) = self.named(name)
        return span


def attributes(span: Span) -> dict[str, object]:
    return {a.key: a.value.string_value or a.value.bool_value for a in span.attributes}


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Start a handler class on a free loopback port (or ``port``); give its URL."""
    servers: list[ThreadingHTTPServer] = []

    def start(handler: type[BaseHTTPRequestHandler], port: int = 0) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def open_door(serve: Callable[..., str]) -> Callable[..., Door]:
    def open_(port: int = 0) -> Door:
        door = Door()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                door.posts += 1
                time.sleep(door.delay)
                door.answered += 1
                right = self.headers["authorization"] == f"Bearer {door.token}"
                status = door.status if right else 401
                if status == 200 and self.path == "/v1/traces":
                    request = ExportTraceServiceRequest.FromString(body)
                    for resource in request.resource_spans:
                        door.services |= {
                            a.value.string_value
                            for a in resource.resource.attributes
                            if a.key == "service.name"
                        }
                        for scope in resource.scope_spans:
                            door.spans.extend(scope.spans)
                else:
                    door.refused += 1
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None: ...

        door.url = serve(Handler, port)
        return door

    return open_


@pytest.fixture
def door(open_door: Callable[..., Door]) -> Door:
    return open_door()


@dataclass
class ModelServer:
    url: str = ""
    headers: list[dict[str, str]] = field(default_factory=list)
    fail_first: int = 0


@pytest.fixture
def open_model(serve: Callable[..., str]) -> Callable[[], ModelServer]:
    def open_() -> ModelServer:
        model = ModelServer()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                model.headers.append({k.lower(): v for k, v in self.headers.items()})
                failed = len(model.headers) <= model.fail_first
                self.send_response(503 if failed else 200)
                kind = "text/event-stream" if asked.get("stream") else "application/json"
                body = _stream() if asked.get("stream") else _answer(self.path)
                self.send_header("content-type", kind)
                self.send_header("retry-after-ms", "1")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None: ...

        model.url = serve(Handler)
        return model

    return open_


@pytest.fixture
def gateway(open_model: Callable[[], ModelServer]) -> ModelServer:
    return open_model()


def _stream() -> bytes:
    base = {"id": "c", "created": 1, "model": "m", "object": "chat.completion.chunk"}
    chunk = {**base, "choices": [{"index": 0, "delta": {"content": "hello"}}]}
    return f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode()


def _answer(path: str) -> bytes:
    if path.endswith("/embeddings"):
        vector = {"object": "embedding", "index": 0, "embedding": [0.0, 1.0]}
        return json.dumps({"object": "list", "model": "m", "data": [vector]}).encode()
    message = {"role": "assistant", "content": "hello"}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    base = {"id": "c", "created": 1, "model": "m", "object": "chat.completion"}
    return json.dumps({**base, "choices": [choice]}).encode()


@pytest.fixture(autouse=True)
def _stopped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("OPERATOR_URL", "OPERATOR_TOKEN", "GATEWAY_URL"):
        monkeypatch.delenv(f"TIDEGATE_{name}", raising=False)
    monkeypatch.setattr(run, "DELAY_MS", 40)
    yield
    sdk.shutdown()


@pytest.fixture
def started(door: Door, gateway: ModelServer) -> None:
    """The SDK runs, sends to ``door`` and knows ``gateway``."""
    sdk.start(door.url, service="shop", token=door.token, gateway_url=gateway.url)
