"""Tidegate as a user sets it up: an app folder with one route per scenario, and ``tidegate up``."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from bench.faults.client import Door
from bench.faults.systems import Pairs, System
from bench.gateway.children import Product, child, wait_until
from bench.gateway.tidegate import ready_line

TIMEOUTS = {"first_token": "10s", "idle": "15s", "total": "100s"}
"""A silent model is left after ten seconds; the rest is as it is by default, or tighter."""


def spec(pairs: Pairs, *, hold: bool, timeouts: dict[str, str] | None = None) -> dict[str, Any]:
    """``tidegate.yaml``. Retries, back-off and breakers are on by default; nothing is cached."""
    models: dict[str, Any] = {}
    routes: dict[str, Any] = {}
    for pair in pairs.values():
        first, second = pair.models
        for name, port in ((first, pair.primary), (second, pair.fallback)):
            models[name] = {
                "provider": "openai",
                "name": name,
                "base_url": f"http://127.0.0.1:{port}/v1",
                "price": {"input": 1, "output": 2},
            }
        routes[pair.name] = {
            "models": first,
            "fallback": [second],
            "timeouts": timeouts or TIMEOUTS,
            **({"hold": "answer"} if hold else {}),
        }
    return {"app": "faults", "models": models, "routes": routes}


@contextlib.contextmanager
def start_tidegate(folder: Path, pairs: Pairs, *, hold: bool) -> Iterator[System]:
    """All parts with embedded PostgreSQL and Valkey, one worker."""
    app = folder / "app"
    app.mkdir()
    (app / "tidegate.yaml").write_text(yaml.safe_dump(spec(pairs, hold=hold), sort_keys=False))
    command = [
        str(Path(sys.executable).with_name("tidegate")),
        *("up", str(app), "--port", "0", "--operator-port", "0", "--workers", "1", "--json"),
    ]
    name = "tidegate-hold" if hold else "tidegate"
    with child(Product(name, folder), command, patience=40) as (process, log):
        wait_until(
            lambda: ready_line(log) is not None,
            "tidegate up",
            seconds=120,
            process=process,
            log=log,
        )
        ready = ready_line(log) or {}
        key = Path(ready["key_file"]).read_text().strip()

        def door(id_: str) -> Door:
            url = f"{ready['gateway_url']}/v1"
            return Door(base_url=url, model=pairs[id_].name, api_key=key)

        yield System(name, importlib.metadata.version("tidegate"), door)


start_plain = functools.partial(start_tidegate, hold=False)
start_holding = functools.partial(start_tidegate, hold=True)
