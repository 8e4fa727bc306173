"""``python -m bench.switches.keys``: what one change costs a worker's loop where keys are many.

The watcher of the switches runs on a loop of this process, with what a gateway worker builds from a
snapshot. A probe beside it takes a turn as often as the loop lets it: the longest pause between two
of its turns is what a request would have waited for. Changes are made by another process.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import platform
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import click
import msgspec
import psycopg
import uvloop
from psycopg import sql

from bench.switches.figures import percentile
from tidegate.gateway.admit.switched import switchboard
from tidegate.stores.migrate import migrate
from tidegate.stores.open import running
from tidegate.stores.postgres import ensure_database, postgres_place, postgres_spec
from tidegate.switches import (
    ACKS,
    Author,
    Change,
    KeyTable,
    Kill,
    Place,
    Standing,
    SwitchSnapshot,
    create_key,
    kill,
    lift_kill,
    list_changes,
    list_workers,
    revoke_key,
    wait_acknowledged,
    watch,
)

COST_BAR = 5.0
"""Milliseconds of CPU that one change may cost the loop, at most: so long, at worst, a request
waits."""
REACH_BAR = 1000.0
"""Milliseconds from a change to its acknowledgement, at most."""
ME = Author(by="bench", reason="bench")
WHAT = ("kill", "lift kill", "create key", "revoke key")


class KeyFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds, but for ``kept_bytes``: what a kind of change replaced on disk, on average."""

    what: str
    changes: int
    stall_p50: float
    stall_max: float
    cost_p50: float
    """CPU of the loop's thread for one change, all turns together."""
    cost_max: float
    reach_p50: float
    reach_max: float
    kept_bytes: int

    @property
    def passed(self) -> bool:
        return self.cost_max < COST_BAR and self.reach_max < REACH_BAR


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """The first snapshot: milliseconds until it is in force, and the longest pause meanwhile."""

    source: str
    ready: float
    stall: float
    cost: float


IDLE_TURN = 0.0001
"""Seconds: a turn in which only the probe ran is shorter."""


class Probe:
    """Pauses of a loop since it was last asked: the longest one by the clock, and the CPU of the
    loop's thread in all turns in which something else ran."""

    def __init__(self) -> None:
        self._wall = self._cpu = 0.0

    async def run(self) -> None:
        wall, cpu = time.perf_counter(), time.thread_time()
        while True:
            await asyncio.sleep(0)
            now, now_cpu = time.perf_counter(), time.thread_time()
            self._wall = max(self._wall, now - wall)
            if now_cpu - cpu > IDLE_TURN:
                self._cpu += now_cpu - cpu
            wall, cpu = now, now_cpu

    def taken(self) -> tuple[float, float]:
        found = self._wall * 1000, self._cpu * 1000
        self._wall = self._cpu = 0.0
        return found


class Worker:
    """What a gateway worker makes of the switches, and nothing to load."""

    def __init__(self) -> None:
        self.came = asyncio.Event()
        self._standing: Standing | None = None

    def take(self, snapshot: SwitchSnapshot, keys: KeyTable) -> None:
        self.keys, self.board = keys, switchboard(snapshot)
        self._standing = Standing(version=snapshot.version, history=snapshot.history)
        self.came.set()

    def standing(self) -> Standing | None:
        return self._standing


def fill(url: str, count: int) -> None:
    """``count`` keys, each with a version of its own, as if they had been made one by one."""
    with psycopg.connect(url, autocommit=True) as connection, connection.transaction():
        connection.execute(
            "INSERT INTO keys (id, name, tenant, hash, version)"
            " SELECT lpad(to_hex(n), 12, '0'), 'key ' || n, 'tenant ' || n %% 1000,"
            " sha256(n::text::bytea), n FROM generate_series(1, %s) n",
            (count,),
        )
        connection.execute("UPDATE switches_version SET version = %s", (count,))


def make(url: str, what: str, number: int) -> float:
    """Make one change; milliseconds until the worker acknowledged it (runs in another process)."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(ACKS)))
        change = _change(connection, what, number)
        outcome = wait_acknowledged(connection, change, 20.0)
    return outcome.acknowledged[0].ms if outcome.complete else math.inf


def _change(connection: psycopg.Connection, what: str, number: int) -> Change:
    if what == "kill":
        return kill(connection, Kill(kind="route", name=f"route {number}"), ME)
    if what == "lift kill":
        return lift_kill(connection, "route", f"route {number}", ME)
    if what == "create key":
        create_key(connection, name=f"bench {number}")
    else:
        revoke_key(connection, f"bench {number}")
    return list_changes(connection, 1)[0]


async def bench(url: str, folder: Path, changes: int) -> tuple[list[Start], list[KeyFigures]]:
    """Both kinds of start, then ``changes`` of each kind, one after the other."""
    kept = folder / "run" / "switches.json"
    starts = [await start(url, "PostgreSQL", kept)]
    # Loopback without a server: only the kept files can be taken.
    starts.append(await start(f"postgresql://postgres@/x?host={folder}", "kept files", kept))
    found: dict[str, list[tuple[float, float, float, int]]] = {what: [] for what in WHAT}
    worker, probe = Worker(), Probe()
    place = Place(gateway="bench", name="worker", host="bench")
    tasks = [asyncio.create_task(watch(url, worker, fallback_file=kept, place=place))]
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as changer:
        try:
            await worker.came.wait()
            await _acknowledged(url)
            tasks.append(asyncio.create_task(probe.run()))
            for number in range(changes):
                for what in WHAT:
                    await asyncio.sleep(0.3)  # what was written for the one before is on the disk
                    probe.taken()
                    before = _files(kept.parent)
                    reach = await loop.run_in_executor(changer, make, url, what, number)
                    await asyncio.sleep(0.3)  # writing beside the loop counts, too
                    written = sum(size for inode, size in _files(kept.parent) - before)
                    found[what].append((*probe.taken(), reach, written))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return starts, [_figures(what, rows) for what, rows in found.items()]


async def start(url: str, source: str, kept: Path) -> Start:
    worker, probe = Worker(), Probe()
    probing = asyncio.create_task(probe.run())
    await asyncio.sleep(0.2)
    probe.taken()
    began = time.perf_counter()
    watching = asyncio.create_task(watch(url, worker, fallback_file=kept))
    await worker.came.wait()
    ready = (time.perf_counter() - began) * 1000
    await asyncio.sleep(2.0)  # with what is written after it
    wall, cpu = probe.taken()
    for task in (watching, probing):
        task.cancel()
    await asyncio.gather(watching, probing, return_exceptions=True)
    return Start(source=source, ready=ready, stall=wall, cost=cpu)


async def _acknowledged(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        while not any(one.version for one in list_workers(connection)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def _files(folder: Path) -> set[tuple[int, int]]:
    """(inode, size): a file that was replaced has another inode."""
    return {(s.st_ino, s.st_size) for path in folder.iterdir() if (s := path.stat())}


def _figures(what: str, rows: list[tuple[float, float, float, int]]) -> KeyFigures:
    walls, cpus, reach, written = (list(column) for column in zip(*rows, strict=True))
    return KeyFigures(
        what=what,
        changes=len(rows),
        stall_p50=percentile(walls, 50),
        stall_max=max(walls),
        cost_p50=percentile(cpus, 50),
        cost_max=max(cpus),
        reach_p50=percentile(reach, 50),
        reach_max=max(reach),
        kept_bytes=int(sum(written) / len(written)),
    )


@click.command(
    epilog="""\b
Examples:
  python -m bench.switches.keys
  python -m bench.switches.keys --keys 10000 --changes 5 --json
Traffic stays on this machine. Exit codes: 0 within the bars, 1 not, 2 usage."""
)
@click.option("--keys", type=click.IntRange(1, 1_000_000), default=100_000, show_default=True)
@click.option("--changes", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as last line.")
def main(keys: int, changes: int, as_json: bool) -> None:
    """Change a switch or a key beside many keys: the worker's loop must hardly notice."""
    with tempfile.TemporaryDirectory(prefix="tidegate-keys-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "run").mkdir()
        with running(postgres_spec(folder)):
            url = ensure_database(postgres_place(folder))
            migrate(url)
            fill(url, keys)
            starts, found = uvloop.run(bench(url, folder, changes))
    show(starts, found, keys)
    passed = all(one.passed for one in found)
    if as_json:
        told = {
            "keys": keys,
            "cost_bar_ms": COST_BAR,
            "reach_bar_ms": REACH_BAR,
            "passed": passed,
            "starts": msgspec.to_builtins(starts),
            "changes": [msgspec.to_builtins(one) | {"passed": one.passed} for one in found],
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
        }
        click.echo(json.dumps(told))
    sys.exit(0 if passed else 1)


def show(starts: list[Start], found: list[KeyFigures], keys: int) -> None:
    click.echo(f"{keys:,} keys; milliseconds; the bar of the cost is {COST_BAR:g}")
    for one in starts:
        click.echo(
            f"  start from {one.source}: in force after {one.ready:.0f},"
            f" longest pause {one.stall:.1f}; CPU of the loop {one.cost:.0f}"
        )
    for row in found:
        click.echo(
            f"  {row.what}: CPU of the loop p50 {row.cost_p50:.1f}, max {row.cost_max:.1f};"
            f" longest pause p50 {row.stall_p50:.1f}, max {row.stall_max:.1f};"
            f" reached p50 {row.reach_p50:.0f}, max {row.reach_max:.0f};"
            f" {row.kept_bytes:,} bytes kept{'' if row.passed else ', NOT within the bars'}"
        )


if __name__ == "__main__":
    main()
