"""The app under soak: every feature of the gateway on, upstreams that fail now and then."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from bench.gateway.children import Product, child, wait_until
from tidegate.testing import ModelServer, Script
from tidegate.testing.timings import Lognormal

SPEC = """\
app: soak
gateway: {{idempotency: 1m}}
models:
  main: {{provider: openai, name: mock-main, base_url: "{main}", price: {{input: 1, output: 2}}}}
  spare: {{provider: openai, name: mock-spare, base_url: "{spare}", price: {{input: 1, output: 2}}}}
  embed:
    {{provider: openai, kind: embeddings, name: mock-e, base_url: "{spare}", price: {{input: 0.1}}}}
routes:
  ask:
    models: main
    fallback: [spare]
    cache: {{exact: 20s}}
    timeouts: {timeouts}
    hedge: {{after: 400ms, spend: 5%}}
  talk:
    models: main
    fallback: [spare]
    timeouts: {timeouts}
    queue: {{concurrent: 8, waiting: 16, wait: 1s}}
    caps: {{output_tokens: 200, surge: {{output_tokens: 40, above: 75%}}}}
  held: {{models: main, fallback: [spare], hold: answer, timeouts: {timeouts}}}
  embed: {{models: embed, cache: {{exact: 20s}}, timeouts: {timeouts}}}
limits:
  money: {{per: tenant, dollars: 500, every: hour}}
  tokens: {{per: key, tokens: 100000000, every: day}}
  burst: {{per: key, match: {{route: talk}}, requests: 300, every: 1m, burst: 10}}
journeys:
  soak: {{routes: [ask, talk, held, embed]}}
"""
_TIMEOUTS = "{connect: 1s, first_token: 2s, idle: 2s, total: 10s}"
FAULTS = (
    "rate=0.03 status=503",
    "rate=0.01 reset",
    "rate=0.02 cut=4",
    "rate=0.005 stall=3",
    "rate=0.005 hang",
    "rate=0.01 status=429 retry_after=1",
)


class Ready(msgspec.Struct, frozen=True):
    """Where the app listens."""

    gateway_url: str
    key: str
    state: Path


@contextlib.contextmanager
def upstreams(seed: int) -> Iterator[tuple[ModelServer, ModelServer]]:
    """A model server that fails now and then, and one that does not."""
    waits: dict[str, Any] = {
        "first_token": Lognormal(median=0.05, sigma=0.6),
        "inter_token": 0.01,
        "keep": 100,
    }
    with (
        ModelServer(script=Script.of(*FAULTS), seed=seed, **waits) as main,
        ModelServer(seed=seed + 1, **waits) as spare,
    ):
        yield main, spare


@contextlib.contextmanager
def running(folder: Path, main: ModelServer, spare: ModelServer, workers: int) -> Iterator[Ready]:
    """The app as ``tidegate up`` runs it, with embedded PostgreSQL and Valkey."""
    spec = SPEC.format(main=main.base_url, spare=spare.base_url, timeouts=_TIMEOUTS)
    with started(folder, spec, workers) as ready:
        yield ready


@contextlib.contextmanager
def started(folder: Path, spec: str, workers: int) -> Iterator[Ready]:
    """``tidegate up`` of the app that ``spec`` describes."""
    app = folder / "app"
    app.mkdir(parents=True)
    (app / "tidegate.yaml").write_text(spec)
    command = [
        str(Path(sys.executable).with_name("tidegate")),
        *("up", str(app), "--port", "0", "--operator-port", "0"),
        *("--workers", str(workers), "--json"),
    ]
    with child(Product("tidegate", folder), command, patience=50) as (process, log):
        found: list[dict[str, Any]] = []

        def said() -> bool:
            lines = log.read_text(errors="replace").splitlines()
            found[:] = [json.loads(x) for x in lines if x.startswith("{") and "gateway_url" in x]
            return bool(found)

        wait_until(said, "tidegate up", seconds=90, process=process, log=log)
        (ready,) = found
        key = Path(ready["key_file"]).read_text().strip()
        yield Ready(ready["gateway_url"], key, app / ".tidegate")
