"""``tidegate up``: build the app and run all its parts on this machine until it is stopped."""

from __future__ import annotations

import asyncio
import json
import logging
import logging.handlers
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from tidegate.base import (
    STATE_FOLDER,
    ChildSpec,
    LockHeld,
    PoolAddress,
    Runtime,
    RuntimeStateError,
    file_lock,
    log_folder,
)
from tidegate.cli.build import build_app
from tidegate.cli.check import print_notices
from tidegate.cli.models import progress_bars
from tidegate.deploy import (
    Doors,
    ensure_port_free,
    plan_app,
    prepare_database,
    require_bindable,
    serve,
)
from tidegate.pools import fetch_files, free_port, plan_pool
from tidegate.registry import open_store, short
from tidegate.release import Release, reachable_models
from tidegate.spec import locate
from tidegate.stores import postgres_lock, read_store_settings

_PORT = click.IntRange(0, 65535)


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """What `up --json` prints once the gateway is ready: one object."""

    app: str
    release: str
    gateway_url: str
    operator_url: str
    routes: tuple[str, ...]
    models: tuple[str, ...]
    try_route: str
    """A chat route that needs no inputs, where there is one."""
    try_inputs: dict[str, Any]
    """Values of the inputs that it does need, to be replaced."""
    key_file: str | None
    """Holds the token of the key ``dev``; null when the app has keys of its own."""
    seconds: float
    pid: int


@click.command(
    epilog="""\b
Examples:
  tidegate up examples/fitness
  tidegate up --port 9000 --workers 4
PostgreSQL and Valkey run under APP/.tidegate; TIDEGATE_DATABASE_URL and TIDEGATE_VALKEY_URL name
others instead. Logs: APP/.tidegate/log. Ctrl-C stops in order, a second one at once.
Exit codes: 0 stopped as asked, 1 a part does not start or the app already runs, 2 usage."""
)
@click.argument("app", default=".", metavar="[APP]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of the gateway.")
@click.option("--port", type=_PORT, default=8080, show_default=True, help="0: any free one.")
@click.option(
    "--operator-host",
    default="127.0.0.1",
    show_default=True,
    help="Address of the operator's door (console, API, telemetry in).",
)
@click.option("--operator-port", type=_PORT, default=8081, show_default=True, help="Its port.")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=lambda: min(4, os.cpu_count() or 1),
    show_default="one for each core, at most 4",
    help="Gateway processes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object when ready.")
def command(
    app: str,
    host: str,
    port: int,
    operator_host: str,
    operator_port: int,
    workers: int,
    as_json: bool,
) -> None:
    """Run APP: its gateway, stores, models, ledger and operator's door, until Ctrl-C."""
    started = time.monotonic()
    folder = locate(app).parent.resolve()
    state = folder / STATE_FOLDER
    with _only_one(folder, state), ExitStack() as stack:
        ports = _ports({"--port": (host, port), "--operator-port": (operator_host, operator_port)})
        doors = Doors(
            host=host,
            port=ports["--port"],
            operator_host=operator_host,
            operator_port=ports["--operator-port"],
            workers=workers,
        )
        with _step("release"):
            built = build_app(folder)
        digest, release = built.digest, built.release
        print_notices(built.notices, err=True)
        pools = _pools(release, folder, state)
        stores = read_store_settings()
        if stores.database_url is None:
            stack.enter_context(_own_postgres(state))
        with _step("folders"):
            local = plan_app(folder, digest, doors, stores, pools)
        require_bindable(release, local.runtime, os.environ)
        _log_to(state)

        def on_ready() -> None:
            ready = _ready(local.runtime, release, time.monotonic() - started)
            click.echo(msgspec.json.encode(ready) if as_json else _summary(ready, app))

        asyncio.run(
            serve(local, prepare=lambda: prepare_database(local), say=_say, on_ready=on_ready)
        )


@contextmanager
def _only_one(folder: Path, state: Path) -> Iterator[None]:
    """Hold the folder; RuntimeStateError ``already_running`` when another `up` does."""
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(state / "run" / "lock"))
        except LockHeld as held:
            raise RuntimeStateError(
                "already_running",
                f"tidegate up runs already for {folder}, as process {held.pid}",
                cure=f"use that one, or stop it: kill {held.pid}",
            ) from None
        yield


@contextmanager
def _own_postgres(state: Path) -> Iterator[None]:
    """Hold the embedded PostgreSQL against commands that would start it for themselves."""
    with ExitStack() as stack:
        try:
            stack.enter_context(postgres_lock(state))
        except LockHeld as held:
            raise RuntimeStateError(
                "postgres_in_use",
                f"process {held.pid} uses the app's PostgreSQL",
                cure="wait for that command to end, or stop it",
            ) from None
        yield


def _ports(wanted: dict[str, tuple[str, int]]) -> dict[str, int]:
    """A port for each door: the one asked for, or a free one where that is 0. No two are the same:
    the second door could not open, and the first would answer its health probe."""
    chosen: dict[str, int] = {}
    for option, (host, asked) in wanted.items():
        port = asked
        while port in (0, *chosen.values()) and not asked:
            port = free_port()
        if port in chosen.values():
            raise RuntimeStateError(
                "port_twice",
                f"the gateway and the operator's door must not share port {port}",
                cure=f"choose another for one of them: {option} {port + 1}",
            )
        ensure_port_free(host, port, option)
        chosen[option] = port
    return chosen


def _pools(release: Release, folder: Path, state: Path) -> dict[str, tuple[ChildSpec, PoolAddress]]:
    """The pools of the local models that the release serves, their files fetched."""
    models = [model for model in reachable_models(release) if model.pool is not None]
    store = open_store(os.environ)
    pools = {}
    with _step("model files"), progress_bars() as progress:
        for model in models:
            files = fetch_files(model, store, folder, progress)
            pool = plan_pool(model, files, state)
            pools[model.name] = (pool.spec, pool.address)
    return pools


def _log_to(state: Path) -> None:
    """What supervision says goes to stderr and to ``.tidegate/log/up.log``, which is bounded."""
    log_folder(state).mkdir(parents=True, exist_ok=True)
    file = logging.handlers.RotatingFileHandler(
        log_folder(state) / "up.log", maxBytes=4 << 20, backupCount=1
    )
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    screen = logging.StreamHandler()
    screen.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("tidegate")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [file, screen]


def _ready(runtime: Runtime, release: Release, seconds: float) -> Ready:
    key = runtime.run / "dev.key"
    return Ready(
        app=release.app,
        release=runtime.release,
        gateway_url=runtime.gateway_url,
        operator_url=runtime.operator_url,
        routes=tuple(release.routes),
        models=tuple(release.models),
        try_route=(plain := _plain_route(release)),
        try_inputs=_sample_inputs(release, plain),
        key_file=str(key) if key.is_file() else None,
        seconds=round(seconds, 2),
        pid=os.getpid(),
    )


def _plain_route(release: Release) -> str:
    chats = [route for route in release.routes.values() if route.kind == "chat"]
    plain = [route.name for route in chats if route.prompt is None]
    return (plain or [route.name for route in chats] or ["ROUTE"])[0]


_SAMPLES: dict[str, Any] = {
    "string": "...", "integer": 1, "number": 1, "boolean": True, "list": [], "object": {}
}  # fmt: skip


def _sample_inputs(release: Release, route: str) -> dict[str, Any]:
    """A value of the right kind for each input that a request to ``route`` must carry."""
    found = release.routes.get(route)
    prompt = release.prompts.get(found.prompt) if found and found.prompt else None
    return {
        name: declared.choices[0] if declared.choices else _SAMPLES[declared.type]
        for name, declared in (prompt.inputs.items() if prompt else ())
        if declared.required
    }


def _try_body(ready: Ready) -> str:
    """The JSON body of a first request."""
    body: dict[str, Any] = {
        "model": ready.try_route,
        "messages": [{"role": "user", "content": "Hello"}],
    }
    if ready.try_inputs:
        body["tidegate"] = {"inputs": ready.try_inputs}
    return json.dumps(body)


def _summary(ready: Ready, app: str) -> str:
    """What a person needs next, in a screen."""
    key = f"$(cat {shlex.quote(ready.key_file)})" if ready.key_file else "YOUR_KEY"
    name = "" if app == "." else f" {app}"
    return f"""
{ready.app} runs (release {short(ready.release)}, ready after {ready.seconds:.1f} s)
  gateway         {ready.gateway_url}/v1
  operator's door {ready.operator_url}
  routes          {", ".join(ready.routes) or "none"}
  make a key      tidegate keys create{name} --name web
  where time goes tidegate profile{name}
  try it
    curl {ready.gateway_url}/v1/chat/completions \\
      -H "Authorization: Bearer {key}" -H "Content-Type: application/json" \\
      -d {shlex.quote(_try_body(ready))}
Ctrl-C stops it."""


@contextmanager
def _step(name: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    _say(name, time.monotonic() - started)


def _say(step: str, seconds: float) -> None:
    click.echo(f"  {step:<20} {seconds:6.2f} s", err=True)
