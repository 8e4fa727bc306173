"""``python -m bench.switches``: an app under load is switched 200 times; how long each takes."""

from __future__ import annotations

import asyncio
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import msgspec
import psycopg
from psycopg import sql
from rich.console import Console
from rich.table import Table

from bench.soak.app import Ready, started
from bench.switches.figures import BAR, Figures, Flip, figures
from bench.switches.load import Load, statuses
from tidegate.base.runtime import Runtime
from tidegate.switches import Cap, Change, Kill, list_workers
from tidegate.switches.workers import ACKS, wait_acknowledged
from tidegate.switches.write import Author, kill, lift_cap, lift_kill, set_cap
from tidegate.testing import ModelServer

SPEC = """\
app: switched
models:
  main: {{provider: openai, name: mock-main, base_url: "{url}", price: {{input: 1, output: 2}}}}
  other: {{provider: openai, name: mock-other, base_url: "{url}", price: {{input: 1, output: 2}}}}
routes:
  ask: {{models: main, cache: {{exact: 20s}}}}
  victim: {{models: other}}
"""
ME = Author(by="bench", reason="bench")
WITHIN = 10.0
PROBES = 3
Make = Callable[[psycopg.Connection], Change]
STEPS: tuple[tuple[str, Make, int], ...] = (
    ("kill route", lambda db: kill(db, Kill(kind="route", name="victim"), ME), 503),
    ("lift route", lambda db: lift_kill(db, "route", "victim", ME), 200),
    ("kill model", lambda db: kill(db, Kill(kind="model", name="other"), ME), 503),
    ("lift model", lambda db: lift_kill(db, "model", "other", ME), 200),
    ("cap", lambda db: set_cap(db, Cap(output_tokens=50), ME), 200),
    ("lift cap", lambda db: lift_cap(db, "", ME), 200),
)
"""What is changed, and what route ``victim`` is answered with from then on."""


@click.command(
    epilog="""\b
Examples:
  make bench-switches
  python -m bench.switches --flips 20 --rate 50
Traffic stays on this machine. Exit codes: 0 within the bar, 1 not, 2 usage."""
)
@click.option("--flips", type=click.IntRange(1, 10_000), default=200, show_default=True)
@click.option("--workers", type=click.IntRange(1, 16), default=4, show_default=True)
@click.option("--rate", type=click.FloatRange(1, 1000), default=100.0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as last line.")
def main(flips: int, workers: int, rate: float, as_json: bool) -> None:
    """Switch a serving app again and again; every worker must run each change within a second."""
    with (
        tempfile.TemporaryDirectory(prefix="tidegate-switches-") as folder,
        ModelServer(first_token=0.02, inter_token=0.005, keep=100) as upstream,
        started(Path(folder), SPEC.format(url=upstream.base_url), workers) as ready,
    ):
        made, answers = asyncio.run(bench(ready, flips, workers, rate))
    found = figures(made)
    show(found, workers, rate, answers)
    if as_json:
        told = msgspec.to_builtins(found) | {
            "bar_ms": BAR,
            "passed": found.passed,
            "workers": workers,
            "rate": rate,
            "answers": answers,
            "last_ms": [flip.last for flip in made],
            "python": platform.python_version(),
        }
        click.echo(json.dumps(told))
    sys.exit(0 if found.passed else 1)


async def bench(
    ready: Ready, flips: int, workers: int, rate: float
) -> tuple[list[Flip], dict[str, int]]:
    """All flips, one after the other, with load all the time."""
    runtime = msgspec.json.decode((ready.state / "run" / "runtime.json").read_bytes(), type=Runtime)
    load = Load(ready.gateway_url, ready.key, rate)
    running = asyncio.create_task(load.run())
    await asyncio.sleep(2)
    made: list[Flip] = []
    try:
        with psycopg.connect(runtime.database_url, autocommit=True) as connection:
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(ACKS)))
            if (there := len(list_workers(connection))) != workers:
                raise click.ClickException(f"{there} workers are registered, not {workers}")
            for number in range(flips):
                what, make, status = STEPS[number % len(STEPS)]
                flip = await asyncio.to_thread(_flip, connection, what, make)
                found = await statuses(ready.gateway_url, ready.key, "victim", PROBES)
                wrong = PROBES - found[status]
                made.append(msgspec.structs.replace(flip, wrong=wrong))
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return made, dict(load.answers)


def _flip(connection: psycopg.Connection, what: str, make: Make) -> Flip:
    began = time.perf_counter()
    outcome = wait_acknowledged(connection, make(connection), WITHIN)
    return Flip(
        what=what,
        workers=tuple(done.ms for done in outcome.acknowledged),
        seen=(time.perf_counter() - began) * 1000,
        unreached=len(outcome.missing) + len(outcome.failed) + len(outcome.lost),
        wrong=0,
    )


def show(found: Figures, workers: int, rate: float, answers: dict[str, int]) -> None:
    table = Table("figure", "value", "bar", box=None, pad_edge=False)
    table.add_row("flips", str(found.flips), "")
    table.add_row("last worker, p50 ms", f"{found.p50:.1f}", "")
    table.add_row("last worker, p99 ms", f"{found.p99:.1f}", f"under {BAR:g}")
    table.add_row("last worker, max ms", f"{found.max:.1f}", "")
    table.add_row("command knows, p99 ms", f"{found.seen_p99:.1f}", "")
    table.add_row("workers not reached", str(found.unreached), "0")
    table.add_row("requests served by an older switch", str(found.wrong), "0")
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    told = ", ".join(f"{n} x {status}" for status, n in sorted(answers.items()))
    console.print(f"{workers} workers, {rate:g} requests a second beside: {told}")
    console.print("within the bar" if found.passed else "NOT within the bar")


if __name__ == "__main__":
    main()
