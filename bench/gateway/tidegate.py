"""Tidegate with everything on: key, template, exact cache, output schema, receipt, content."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.gateway import cpu
from bench.gateway.children import Product, child, wait_until
from bench.gateway.door import INPUTS, QUESTION, TEMPLATE, Door
from bench.gateway.systems import CHAT, STREAM, System, Upstreams

GROUPS = {
    "tidegate.gateway": "gateway",
    "tidegate.ledger": "loader",
    "tidegate.console": "operator",
    "postgres": "postgresql",
    "valkey": "valkey",
    "tidegate up": "up",
}
"""What a process of the tree is reported as, by its command line."""

_SPEC = """\
app: bench
models:
  chat: {{provider: openai, name: {chat}, base_url: "http://127.0.0.1:{to_chat}/v1", {price}}}
  stream: {{provider: openai, name: {stream}, base_url: "http://127.0.0.1:{to_stream}/v1", {price}}}
prompts:
  plan: {{file: prompts/plan.md, inputs: {{goal: string, level: [beginner, regular, athlete]}}}}
routes:
  plan:
    models: chat
    prompt: plan
    cache: {{exact: 1h}}
    caps: {{prompt_tokens: 4000, output_tokens: 256}}
    {output}
  talk:
    models: stream
    prompt: plan
    cache: {{exact: 1h}}
    caps: {{prompt_tokens: 4000, output_tokens: 256}}
{metered}journeys:
  get-plan: {{routes: [plan, talk]}}
{limits}"""
_METERED = """\
  metered:
    models: chat
    prompt: plan
    cache: {exact: 1h}
    caps: {prompt_tokens: 4000, output_tokens: 256}
    output: schemas/plan.json
"""
"""Route ``plan`` again, under a name that a limit can match."""
_LIMIT = "limits:\n  spend: {{{match}per: tenant, dollars: 100000, every: day}}\n"
"""One limit that is reserved on and settled, and never refuses."""
_SCHEMA = {
    "type": "object",
    "required": ["title", "minutes", "steps"],
    "additionalProperties": False,
    "properties": {
        "title": {"type": "string", "minLength": 1},
        "minutes": {"type": "integer", "minimum": 5, "maximum": 240},
        "steps": {"type": "array", "minItems": 1, "items": {"type": "string"}},
    },
}


def write_app(
    app: Path,
    upstreams: Upstreams,
    *,
    guard: bool,
    limited: bool = False,
    metered: bool = False,
) -> None:
    """An app folder whose route ``plan`` has every stage on and whose route ``talk`` streams.

    ``limited``: a limit that holds for every route. ``metered``: a third route, and a limit that
    holds for that one alone.
    """
    (app / "prompts").mkdir(parents=True)
    (app / "schemas").mkdir()
    (app / "prompts/plan.md").write_text(TEMPLATE)
    (app / "schemas/plan.json").write_text(json.dumps(_SCHEMA))
    spec = _SPEC.format(
        chat=CHAT,
        stream=STREAM,
        to_chat=upstreams.chat,
        to_stream=upstreams.stream,
        price="price: {input: 0.15, output: 0.6}",
        output="output: schemas/plan.json" if guard else "store: {content: true}",
        metered=_METERED if metered else "",
        limits=_LIMIT.format(match="match: {route: metered}, " if metered else "")
        if limited or metered
        else "",
    )
    (app / "tidegate.yaml").write_text(spec)


def _door(port: int, route: str, key: str) -> Door:
    """The peers' text, asked as Tidegate is asked: the template's inputs beside the messages."""
    body = {
        "model": route,
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "max_tokens": 256,
        "tidegate": {"inputs": INPUTS},
    }
    headers = {"authorization": f"Bearer {key}", "x-tidegate-journey": "get-plan"}
    return Door(port, "/v1/chat/completions", json.dumps(body), headers)


def ready_line(log: Path) -> dict[str, Any] | None:
    """The object that ``tidegate up --json`` prints once it serves."""
    for line in log.read_text(errors="replace").splitlines():
        if line.startswith("{") and '"gateway_url"' in line:
            return dict(json.loads(line))
    return None


def workers(product: Product) -> list[int]:
    """Process ids of the gateway's workers: the children of its first process."""
    processes = product.processes()
    group = cpu.groups(processes, GROUPS, "other")
    gateway = {pid for pid, name in group.items() if name == "gateway"}
    return [p.pid for p in processes if p.parent in gateway and "resource_tracker" not in p.command]


def receipts_level(state: Path, at: float) -> int | None:
    """How many receipts the loader has put into PostgreSQL, once all from before ``at`` are.

    Read from the file and not through the package: the loader may be another commit's.
    """
    try:
        status = json.loads((state / "run/ledger.json").read_bytes())
    except FileNotFoundError:
        return None
    return int(status["loaded"]) if status["level_at"] > at else None


@dataclass(frozen=True)
class Program:
    """The ``tidegate`` command to start, and what its environment holds beside ours."""

    path: Path
    environ: dict[str, str] = field(default_factory=dict)


INSTALLED = Program(Path(sys.executable).with_name("tidegate"))
"""The one of this environment."""


@contextlib.contextmanager
def start_tidegate(
    folder: Path,
    upstreams: Upstreams,
    *,
    guard: bool = True,
    limited: bool = False,
    metered: bool = False,
    switched: bool = False,
    processes: int = 1,
    program: Program = INSTALLED,
) -> Iterator[System]:
    """All parts, as ``tidegate up`` runs them, with embedded PostgreSQL and Valkey."""
    app = folder / "app"
    write_app(app, upstreams, guard=guard, limited=limited, metered=metered)
    product = Product("tidegate", folder, group_names=GROUPS)
    command = [
        str(program.path),
        *("up", str(app), "--port", "0", "--operator-port", "0"),
        *("--workers", str(processes), "--json"),
    ]
    by_hand = ("cap", "--output-tokens", "4096", "--app", str(app), "--json")
    with child(product, command, environ=program.environ, patience=40) as (process, log):
        wait_until(
            lambda: ready_line(log) is not None, "tidegate up", seconds=90, process=process, log=log
        )
        ready = ready_line(log) or {}
        port = int(str(ready["gateway_url"]).rpartition(":")[2])
        key = Path(ready["key_file"]).read_text().strip()
        if switched:  # a cap that every request is held against, and that changes none
            environ = {**os.environ, **program.environ}
            subprocess.run(
                [command[0], *by_hand], env=environ, check=True, capture_output=True, timeout=60
            )
        plan = _door(port, "plan", key)
        yield System(
            "tidegate",
            importlib.metadata.version("tidegate"),
            product,
            chat=plan,
            stream=_door(port, "talk", key).streamed(),
            hit=replace(plan),
            metered=_door(port, "metered", key) if metered else None,
            worker=lambda: workers(product),
            level=lambda at: receipts_level(app / ".tidegate", at),
        )
