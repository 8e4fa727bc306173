"""What ``make demo`` runs: the example app, a minute of its users, and where their time went.

Starts ``tidegate up examples/fitness`` and the app, sends the questions of ``data/users.jsonl``
through the app's pages at seeded random times, prints the profile, stops all that it started.
Exit code 0 only if every journey reached its end.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tidegate.base.children import Child, ChildSpec
from tidegate.base.errors import RuntimeStateError, TidegateError
from tidegate.base.runtime import Runtime, read_runtime
from tidegate.deploy.probes import answers_ok, ensure_port_free
from tidegate.pools.loopback import free_port

ROOT = Path(__file__).resolve().parents[1]
APP = ROOT / "examples" / "fitness"
TIDEGATE = (str(Path(sys.executable).with_name("tidegate")),)
AT_ONCE = 4
"""Users who wait at the same time; a later one waits outside, as the model has two slots."""

SETTLE_S = 3
"""From the last answer until its receipt and spans are in the ledger."""

screen = Console(stderr=True, soft_wrap=True)


@dataclass(frozen=True)
class Ended:
    """One journey as its user saw it. ``why`` is None when it reached its end."""

    journey: str
    first: float
    total: float
    why: str | None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long users keep coming")
    parser.add_argument("--rate", type=float, default=0.8, help="users a second, on average")
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    try:
        return demo(asked.seconds, asked.rate, asked.seed)
    except TidegateError as error:
        screen.print(f"error: {error}", style="red", markup=False)
        return error.exit
    except KeyboardInterrupt:
        screen.print("stopped")
        return 130


def demo(seconds: float, rate: float, seed: int) -> int:
    with ExitStack() as stack:
        fetch_models()
        already = running_pid()
        runtime = stack.enter_context(tidegate_up())
        app_url = stack.enter_context(fitness_app())
        began = time.time()
        ended = asyncio.run(send_users(app_url, arrivals(seconds, rate, seed)))
        report(ended)
        show_profile(runtime, began)
        ours = runtime.pid != already
    failed = sum(one.why is not None for one in ended)
    if failed:
        print(f"{failed} journeys failed; logs: {APP / '.tidegate' / 'log'}")
    print(f"\n{'What the demo started is stopped. ' if ours else ''}To keep playing:")
    print(KEEP_PLAYING if ours else KEEP_PLAYING.partition("\n")[2])
    return 1 if failed or not ended else 0


KEEP_PLAYING = """\
  .venv/bin/tidegate up examples/fitness         the gateway on http://127.0.0.1:8080/v1
  .venv/bin/python -m examples.fitness           the app on http://127.0.0.1:8000
  .venv/bin/tidegate profile examples/fitness    where time and money go
"""


def say(text: str) -> None:
    screen.print(text, style="bold", markup=False)


def fetch_models() -> None:
    say("1/4  models: SmolLM2-135M and MiniLM, pinned by hash (114 MB on the first run)")
    run_command("models", "fetch", str(APP), stdout=subprocess.DEVNULL)


def run_command(*words: str, stdout: int | None = None) -> None:
    """Run a tidegate command, its messages on this screen; RuntimeStateError if it fails."""
    done = subprocess.run([*TIDEGATE, *words], stdout=stdout, check=False, cwd=ROOT)
    if done.returncode:
        raise RuntimeStateError(
            "demo_step_failed",
            f"tidegate {' '.join(words)} ended with {done.returncode}",
            cure="read the lines above, then run the same command again",
        )


def running_pid() -> int | None:
    """Process id of the ``tidegate up`` that runs for the example; None when none does."""
    try:
        return read_runtime(APP).pid
    except RuntimeStateError:
        return None


@contextmanager
def tidegate_up() -> Iterator[Runtime]:
    """The app's gateway and its engines, started here unless they run already."""
    if (pid := running_pid()) is not None:
        say(f"2/4  tidegate up runs already as process {pid}: using it")
        yield read_runtime(APP)
        return
    gateway, operator = (port_or_free(port) for port in (8080, 8081))
    say("2/4  tidegate up examples/fitness")
    log = APP / ".tidegate" / "log" / "demo-up.log"
    command = [*TIDEGATE, "up", str(APP), "--port", str(gateway), "--operator-port", str(operator)]

    def ready() -> bool:
        return running_pid() is not None and answers_ok(f"http://127.0.0.1:{gateway}/ready")

    with child("tidegate up", command, log, ready, within=180):
        runtime = read_runtime(APP)
        screen.print(f"     gateway {runtime.gateway_url}/v1", markup=False)
        yield runtime


@contextmanager
def fitness_app() -> Iterator[str]:
    """The example app in its own process; its URL."""
    port = port_or_free(8000)
    say("3/4  the app: python -m examples.fitness")
    command = [sys.executable, "-m", "examples.fitness", "--port", str(port)]
    log = APP / ".tidegate" / "log" / "demo-app.log"
    url = f"http://127.0.0.1:{port}"
    with child("fitness app", command, log, lambda: answers_ok(f"{url}/health"), within=60):
        screen.print(f"     page {url}", markup=False)
        yield url


@contextmanager
def child(
    name: str, command: list[str], log: Path, probe: object, *, within: float
) -> Iterator[Child]:
    log.unlink(missing_ok=True)
    spec = ChildSpec(
        name=name,
        argv=tuple(command),
        log=log,
        cwd=ROOT,
        env={"PYTHONUNBUFFERED": "1"},
        probe=probe,  # type: ignore[arg-type]
        ready_within=within,
        grace=20.0,
    )
    started = Child(spec)
    try:
        started.wait_ready()
        yield started
    finally:
        started.stop()


def port_or_free(port: int) -> int:
    """``port``, or a free one with a word about it."""
    try:
        ensure_port_free("127.0.0.1", port, "--port")
    except TidegateError:
        other = free_port()
        screen.print(f"     port {port} is taken: using {other}", markup=False)
        return other
    return port


def arrivals(seconds: float, rate: float, seed: int) -> list[tuple[float, dict[str, object]]]:
    """When each user comes, and what for: a Poisson process over the bundled questions."""
    lines = (APP / "data" / "users.jsonl").read_text().splitlines()
    users: list[tuple[float, dict[str, object]]] = []
    at, dice = 0.0, random.Random(seed)
    for line in itertools.cycle(lines):
        at += dice.expovariate(rate)
        if at > seconds:
            return users
        users.append((at, json.loads(line)))
    return users


async def send_users(url: str, users: list[tuple[float, dict[str, object]]]) -> list[Ended]:
    """Send each user's form when its time comes, at most AT_ONCE at a time."""
    say(f"4/4  {len(users)} users in {users[-1][0] if users else 0:.0f} s")
    ended: list[Ended] = []
    columns = (TextColumn("     {task.description}"), BarColumn(), TimeElapsedColumn())
    began, turn = time.monotonic(), asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        with Progress(*columns, console=screen, disable=not screen.is_terminal) as bar:
            task = bar.add_task("waiting for the first", total=len(users))

            async def one(at: float, form: dict[str, object]) -> None:
                await asyncio.sleep(max(0.0, began + at - time.monotonic()))
                async with turn:
                    ended.append(await send(client, form))
                wrong = sum(e.why is not None for e in ended)
                words = f"{len(ended)}/{len(users)} answered, {wrong} failed"
                bar.update(task, advance=1, description=words)
                if not screen.is_terminal and len(ended) % 10 == 0:
                    screen.print(f"     {words}", markup=False)

            async with asyncio.TaskGroup() as group:
                for at, form in users:
                    group.create_task(one(at, form))
    return ended


async def send(client: httpx.AsyncClient, form: dict[str, object]) -> Ended:
    """One journey over HTTP, as the page does it."""
    journey = str(form["journey"])
    path = {"get-plan": "/plan", "ask-coach": "/ask"}[journey]
    began, first, last = time.monotonic(), 0.0, {"kind": "", "value": ""}
    try:
        async with client.stream("POST", path, json=form) as response:
            if response.status_code != 200:
                why = f"HTTP {response.status_code}"
                return Ended(journey, 0.0, time.monotonic() - began, why)
            async for line in response.aiter_lines():
                last = json.loads(line)
                if last["kind"] == "text" and not first:
                    first = time.monotonic() - began
    except httpx.HTTPError as error:
        last = {"kind": "error", "value": f"{type(error).__name__}: {error}"}
    total = time.monotonic() - began
    if last["kind"] == "done":
        return Ended(journey, first, total, None)
    why = last["value"] if last["kind"] == "error" else "the answer broke off"
    return Ended(journey, first, total, why)


def report(ended: list[Ended]) -> None:
    for journey in sorted({one.journey for one in ended}):
        these = [one for one in ended if one.journey == journey]
        good = sorted(one.total for one in these if one.why is None)
        middle = f", half of them within {good[len(good) // 2]:.1f} s" if good else ""
        print(f"{journey}: {len(good)} of {len(these)} reached their end{middle}")
    for why in sorted({one.why for one in ended if one.why}):
        print(f"  failed: {why}")


def show_profile(runtime: Runtime, began: float) -> None:
    """The profile of what happened since ``began``, in seconds since the epoch."""
    print(flush=True)
    time.sleep(SETTLE_S)
    window = f"{math.ceil(time.time() - began)}s"
    run_command("profile", runtime.app, "--window", window)


if __name__ == "__main__":
    sys.exit(main())
