"""The systems, each set up as its documentation says: two retries, 30 s, one fallback, no cache."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench.faults.client import Door
from bench.gateway.children import Product, child, listens, wait_until
from bench.gateway.systems import ENV, PEERS, needs, pinned
from tidegate.pools.loopback import free_port

RETRIES, TIMEOUT = 2, 30
"""The baseline that every system gets."""


@dataclass(frozen=True)
class Pair:
    """The two servers of one scenario: their ports and the names of their models."""

    name: str
    primary: int
    fallback: int

    @property
    def models(self) -> tuple[str, str]:
        return f"{self.name}-primary", f"{self.name}-fallback"


Pairs = Mapping[str, Pair]
"""Scenario id to its pair."""


@dataclass(frozen=True)
class System:
    """One system that runs; ``door`` is where the scenario of an id is asked."""

    name: str
    version: str
    door: Callable[[str], Door]


Start = Callable[[Path, Pairs], AbstractContextManager[System]]


@contextlib.contextmanager
def start_client(folder: Path, pairs: Pairs) -> Iterator[System]:
    """No gateway and so no fallback: what the official package does by itself."""

    def door(id_: str) -> Door:
        pair = pairs[id_]
        return Door(
            base_url=f"http://127.0.0.1:{pair.primary}/v1",
            model=pair.models[0],
            retries=RETRIES,
            timeout=TIMEOUT,
        )

    yield System("client", importlib.metadata.version("openai"), door)


@contextlib.contextmanager
def start_litellm(folder: Path, pairs: Pairs) -> Iterator[System]:
    """The proxy with one worker; retries, timeout and fallbacks in its router settings."""
    python = needs(ENV / "litellm/bin/python")
    port = free_port()

    def deployment(model: str, to: int) -> dict[str, object]:
        params = {
            "model": f"openai/{model}",
            "api_base": f"http://127.0.0.1:{to}/v1",
            "api_key": "none",
        }
        return {"model_name": model, "litellm_params": params}

    deployments = []
    for pair in pairs.values():
        first, second = pair.models
        deployments += [deployment(first, pair.primary), deployment(second, pair.fallback)]
    config = folder / "litellm.yaml"  # YAML reads JSON
    config.write_text(
        json.dumps(
            {
                "model_list": deployments,
                "router_settings": {
                    "num_retries": RETRIES,
                    "timeout": TIMEOUT,
                    "fallbacks": [{p.models[0]: [p.models[1]]} for p in pairs.values()],
                },
                "litellm_settings": {"telemetry": False, "cache": False, "set_verbose": False},
            },
            indent=1,
        )
    )
    command = [
        str(ENV / "litellm/bin/litellm"),
        *("--config", str(config), "--host", "127.0.0.1", "--port", str(port)),
        *("--num_workers", "1", "--telemetry", "False"),
    ]
    key = f"sk-{secrets.token_hex(32)}"  # it refuses to start without one
    quiet = {
        "LITELLM_MASTER_KEY": key,
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    with child(Product("litellm", folder), command, environ=quiet) as (process, log):
        wait_until(lambda: listens(port), "LiteLLM", seconds=120, process=process, log=log)

        def door(id_: str) -> Door:
            url = f"http://127.0.0.1:{port}/v1"
            return Door(base_url=url, model=pairs[id_].models[0], api_key=key)

        yield System("litellm", pinned(python, "litellm"), door)


@contextlib.contextmanager
def start_portkey(folder: Path, pairs: Pairs) -> Iterator[System]:
    """Its Node server; targets, retries and timeouts go with each request as its config."""
    home = needs(ENV / "portkey/node_modules/@portkey-ai/gateway")
    port = free_port()
    command = [
        *("node", "--require", str(PEERS / "portkey/loopback.cjs")),
        *(str(home / "build/start-server.js"), f"--port={port}", "--headless"),
    ]
    with child(Product("portkey", folder), command, environ={"NODE_ENV": "production"}) as (
        process,
        log,
    ):
        wait_until(lambda: listens(port), "Portkey", seconds=60, process=process, log=log)

        def target(model: str, to: int) -> dict[str, object]:
            return {
                "provider": "openai",
                "api_key": "none",
                "custom_host": f"http://127.0.0.1:{to}/v1",
                "override_params": {"model": model},
                "retry": {
                    "attempts": RETRIES,
                    "use_retry_after_header": True,
                    "useRetryAfterHeader": True,
                },
                "request_timeout": TIMEOUT * 1000,
            }

        def door(id_: str) -> Door:
            pair = pairs[id_]
            first, second = pair.models
            config = {
                "strategy": {"mode": "fallback"},
                "targets": [target(first, pair.primary), target(second, pair.fallback)],
            }
            return Door(
                base_url=f"http://127.0.0.1:{port}/v1",
                model=first,
                headers={"x-portkey-config": json.dumps(config)},
            )

        version = str(json.loads((home / "package.json").read_text())["version"])
        yield System("portkey", version, door)


_TENSORZERO = """
[gateway]
observability.enabled = false
disable_pseudonymous_usage_analytics = true
"""
_TENSORZERO_MODEL = """
[models.{name}]
routing = ["primary", "fallback"]

[models.{name}.providers.primary]
type = "openai"
api_base = "http://127.0.0.1:{primary}/v1/"
model_name = "{name}-primary"
api_key_location = "none"
timeouts = {{ non_streaming.total_ms = {ms}, streaming.ttft_ms = {ms} }}

[models.{name}.providers.fallback]
type = "openai"
api_base = "http://127.0.0.1:{fallback}/v1/"
model_name = "{name}-fallback"
api_key_location = "none"
timeouts = {{ non_streaming.total_ms = {ms}, streaming.ttft_ms = {ms} }}

[functions.{name}]
type = "chat"

[functions.{name}.variants.only]
type = "chat_completion"
model = "{name}"
retries = {{ num_retries = {retries}, max_delay_s = 10 }}
"""


@contextlib.contextmanager
def start_tensorzero(folder: Path, pairs: Pairs) -> Iterator[System]:
    """A function whose one variant retries, over a model that routes to two providers."""
    python = needs(ENV / "tensorzero/bin/python")
    config = folder / "tensorzero.toml"
    models = [
        _TENSORZERO_MODEL.format(
            name=pair.name,
            primary=pair.primary,
            fallback=pair.fallback,
            ms=TIMEOUT * 1000,
            retries=RETRIES,
        )
        for pair in pairs.values()
    ]
    config.write_text(_TENSORZERO + "".join(models))
    command = [str(python), str(PEERS / "tensorzero_gateway.py"), str(config)]
    quiet = {"RUST_LOG": "error", "NO_COLOR": "1"}
    told = re.compile(r"^listening http://127\.0\.0\.1:(\d+)/", re.MULTILINE)
    with child(Product("tensorzero", folder), command, environ=quiet) as (process, log):
        wait_until(
            lambda: bool(told.search(log.read_text())),
            "TensorZero",
            seconds=60,
            process=process,
            log=log,
        )
        port = int(told.findall(log.read_text())[0])

        def door(id_: str) -> Door:
            return Door(
                base_url=f"http://127.0.0.1:{port}/openai/v1",
                model=f"tensorzero::function_name::{pairs[id_].name}",
            )

        yield System("tensorzero", pinned(python, "tensorzero"), door)
