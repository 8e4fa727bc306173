"""The systems that are measured, each started on the same two upstreams."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench.gateway import nginx
from bench.gateway.children import BenchError, Product, child, listens, wait_until
from bench.gateway.door import Door, openai_door
from tidegate.pools.loopback import free_port

PEERS = Path(__file__).resolve().parents[1] / "peers"
ENV = PEERS / "env"
CHAT, STREAM = "bench-chat", "bench-stream"
"""The model names; each stands for one upstream."""


@dataclass(frozen=True)
class Upstreams:
    """Ports of the constant upstreams: chat completions, and stamped streams."""

    chat: int
    stream: int


@dataclass(frozen=True)
class System:
    """One system that runs. ``hit`` is asked with equal bodies; None: it has no cache on."""

    name: str
    version: str
    product: Product
    chat: Door
    stream: Door
    hit: Door | None = None
    metered: Door | None = None
    """A door behind which one limit is active, beside doors that have none."""
    worker: Callable[[], list[int]] | None = None
    """Process ids of the workers whose memory is watched."""
    level: Callable[[float], int | None] | None = None
    """Given a wall time: how many receipts are in the database in all, once all that were written
    before that time are; None while they are not. Without: no work is done behind the answers
    but what CPU use shows."""


Start = Callable[[Path, Upstreams], AbstractContextManager[System]]


def needs(path: Path) -> Path:
    if not path.exists():
        raise BenchError(f"{path.relative_to(PEERS.parent)} is missing; run: make bench-peers")
    return path


def pinned(python: Path, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    shown = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    return shown.stdout.strip()


@contextlib.contextmanager
def start_direct(folder: Path, upstreams: Upstreams) -> Iterator[System]:
    """No gateway: what the upstreams and the clients cost by themselves. No processes."""
    yield System(
        "direct",
        nginx.version(),
        Product("direct", folder),
        openai_door(upstreams.chat, "/v1/chat/completions", CHAT),
        openai_door(upstreams.stream, "/v1/chat/completions", STREAM).streamed(),
    )


@contextlib.contextmanager
def start_nginx(folder: Path, upstreams: Upstreams) -> Iterator[System]:
    """A proxy that reads nothing of what it passes on: the floor."""
    with nginx.proxy(folder, upstreams.chat, upstreams.stream) as (product, chat, stream):
        yield System(
            "nginx",
            nginx.version(),
            product,
            openai_door(chat, "/v1/chat/completions", CHAT),
            openai_door(stream, "/v1/chat/completions", STREAM).streamed(),
        )


_TENSORZERO = """
[gateway]
observability.enabled = false
disable_pseudonymous_usage_analytics = true
"""
_TENSORZERO_MODEL = """
[models.{name}]
routing = ["upstream"]

[models.{name}.providers.upstream]
type = "openai"
api_base = "http://127.0.0.1:{to}/v1/"
model_name = "{name}"
api_key_location = "none"
"""


@contextlib.contextmanager
def start_tensorzero(folder: Path, upstreams: Upstreams) -> Iterator[System]:
    """Observability off, no function, no cache: its cheapest way."""
    python = needs(ENV / "tensorzero/bin/python")
    config = folder / "tensorzero.toml"
    config.write_text(
        _TENSORZERO
        + _TENSORZERO_MODEL.format(name=CHAT, to=upstreams.chat)
        + _TENSORZERO_MODEL.format(name=STREAM, to=upstreams.stream)
    )
    product = Product("tensorzero", folder)
    command = [str(python), str(PEERS / "tensorzero_gateway.py"), str(config)]
    quiet = {"RUST_LOG": "error", "NO_COLOR": "1"}
    with child(product, command, environ=quiet) as (process, log):
        told = re.compile(r"^listening http://127\.0\.0\.1:(\d+)/", re.MULTILINE)
        wait_until(
            lambda: bool(told.search(log.read_text())),
            "TensorZero",
            seconds=30,
            process=process,
            log=log,
        )
        port = int(told.findall(log.read_text())[0])
        path, model = "/openai/v1/chat/completions", "tensorzero::model_name::"
        yield System(
            "tensorzero",
            pinned(python, "tensorzero"),
            product,
            openai_door(port, path, model + CHAT),
            openai_door(port, path, model + STREAM).streamed(),
        )


@contextlib.contextmanager
def start_portkey(folder: Path, upstreams: Upstreams) -> Iterator[System]:
    """Its Node server without the log page; provider and address go with each request."""
    home = needs(ENV / "portkey/node_modules/@portkey-ai/gateway")
    port = free_port()
    product = Product("portkey", folder)
    command = [
        "node",
        "--require",
        str(PEERS / "portkey/loopback.cjs"),
        str(home / "build/start-server.js"),
        f"--port={port}",
        "--headless",
    ]
    with child(product, command, environ={"NODE_ENV": "production"}) as (process, log):
        wait_until(lambda: listens(port), "Portkey", seconds=30, process=process, log=log)

        def headers(to: int) -> dict[str, str]:
            return {
                "authorization": "Bearer none",
                "x-portkey-provider": "openai",
                "x-portkey-custom-host": f"http://127.0.0.1:{to}/v1",
            }

        path = "/v1/chat/completions"
        yield System(
            "portkey",
            str(json.loads((home / "package.json").read_text())["version"]),
            product,
            openai_door(port, path, CHAT, headers(upstreams.chat)),
            openai_door(port, path, STREAM, headers(upstreams.stream)).streamed(),
        )


_LITELLM = """
model_list: [{models}]
litellm_settings: {{telemetry: false, num_retries: 0, cache: false, set_verbose: false}}
"""
_LITELLM_MODEL = (
    "{{model_name: {name}, litellm_params: "
    '{{model: openai/{name}, api_base: "http://127.0.0.1:{to}/v1", api_key: none}}}}'
)


@contextlib.contextmanager
def start_litellm(folder: Path, upstreams: Upstreams) -> Iterator[System]:
    """The proxy with one worker and its master key: no database, no cache, no retries."""
    python = needs(ENV / "litellm/bin/python")
    port = free_port()
    config = folder / "litellm.yaml"
    models = ", ".join(
        _LITELLM_MODEL.format(name=name, to=to)
        for name, to in ((CHAT, upstreams.chat), (STREAM, upstreams.stream))
    )
    config.write_text(_LITELLM.format(models=models))
    product = Product("litellm", folder)
    command = [
        str(ENV / "litellm/bin/litellm"),
        "--config",
        str(config),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--num_workers",
        "1",
        "--telemetry",
        "False",
    ]
    key = f"sk-{secrets.token_hex(32)}"  # it refuses to start without one
    quiet = {
        "LITELLM_MASTER_KEY": key,
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    with child(product, command, environ=quiet) as (process, log):
        wait_until(lambda: listens(port), "LiteLLM", seconds=90, process=process, log=log)
        path = "/v1/chat/completions"
        yield System(
            "litellm",
            pinned(python, "litellm"),
            product,
            openai_door(port, path, CHAT, {"authorization": f"Bearer {key}"}),
            openai_door(port, path, STREAM, {"authorization": f"Bearer {key}"}).streamed(),
        )


PEER_STARTS: dict[str, Start] = {
    "direct": start_direct,
    "nginx": start_nginx,
    "tensorzero": start_tensorzero,
    "portkey": start_portkey,
    "litellm": start_litellm,
}
