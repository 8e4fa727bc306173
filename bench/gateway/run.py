"""A whole run: start all systems on one upstream, measure them in turns, sum up."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from bench.gateway import figures, load, machine, measure, nginx
from bench.gateway.children import BenchError
from bench.gateway.systems import PEER_STARTS, Start, System, Upstreams
from bench.gateway.tidegate import start_tidegate

ALL = (*PEER_STARTS, "tidegate")
QUICK = ("direct", "nginx", "tensorzero", "tidegate")
Say = Callable[[str], None]
Round = dict[str, dict[str, Any]]
"""System to its measurements."""


@dataclass(frozen=True)
class Settings:
    """What is asked of a run. ``seconds`` is of one measurement."""

    systems: tuple[str, ...] = ALL
    rounds: int = 3
    seconds: float = 4.0
    connections: int = 16
    stream_connections: int = 4
    requests: int = 200_000
    """Requests of the memory run; its first mark is a quarter of them. 0: no memory run."""
    workers: int = 1
    guard: bool = True
    limited: bool = False
    """Whether one limit in dollars is active."""
    switched: bool = False
    """Whether a cap set by hand is in force."""
    streams: bool = True
    cases: tuple[str, ...] = ("miss", "hit")


Failed = dict[str, str]
"""Systems that are left out of the rest of a run, and why."""


@contextlib.contextmanager
def _or_left_out(name: str, failed: Failed, say: Say) -> Iterator[None]:
    """A system that fails is left out and named; the others go on."""
    try:
        yield
    except (BenchError, httpx.HTTPError, subprocess.SubprocessError) as error:
        failed[name] = str(error) or repr(error)
        say(f"{name} is left out: {failed[name]}")


@contextlib.contextmanager
def _bench(
    settings: Settings, numbers: load.Tags, failed: Failed, say: Say
) -> Iterator[tuple[measure.Bench, list[System]]]:
    """The upstreams and all systems, up and answering truly; all stopped on leaving."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-bench-")))
        root.chmod(0o755)  # PostgreSQL runs as another user when this is root

        def folder(name: str) -> Path:
            path = root / name
            path.mkdir()
            return path

        upstream, chat = stack.enter_context(nginx.upstream(folder("upstream")))
        streaming, stream = stack.enter_context(nginx.stream_upstream(folder("upstream-stream")))
        tools = (upstream, streaming)
        bench = measure.Bench(
            folder("client"),
            chat,
            tools,
            settings.connections,
            settings.stream_connections,
            settings.seconds,
            patience=15.0,
        )
        own = functools.partial(
            start_tidegate,
            guard=settings.guard,
            limited=settings.limited,
            switched=settings.switched,
            processes=settings.workers,
        )
        starts: dict[str, Start] = {**PEER_STARTS, "tidegate": own}
        running = []
        for name in settings.systems:
            started = time.monotonic()
            with _or_left_out(name, failed, say):
                system = stack.enter_context(starts[name](folder(name), Upstreams(chat, stream)))
                measure.verify(system, next(numbers))
                say(f"{name} {system.version} is up after {time.monotonic() - started:.1f} s")
                running.append(system)
        yield bench, running
        say("stopping what was started")


def _round(
    bench: measure.Bench, system: System, settings: Settings, numbers: load.Tags, first: bool
) -> dict[str, Any]:
    """All measurements of one system, once."""
    warm = 2.0 if first else 1.0
    cases = {"miss": system.chat, "hit": system.hit}
    out: dict[str, Any] = {}
    for case in settings.cases:
        if (door := cases[case]) is None:
            continue
        vary = case == "miss"
        tag = next(numbers)
        load.run(
            door,
            bench.folder,
            seconds=warm,
            connections=bench.connections,
            tag=tag,
            vary=vary,
        )
        tag = next(numbers) if vary else tag
        out[case] = measure.chat(bench, system, door, tag, vary=vary)
    if settings.streams:
        out["stream"] = measure.stream(bench, system, next(numbers))
    return out


def add_to_direct(of_round: dict[str, dict[str, Any]]) -> None:
    """Fill in what each system adds to the median of the direct way of the same round, in
    milliseconds. So the row of the direct way itself shows the jitter that is not a system's."""
    direct = of_round.get("direct", {}).get("stream")
    for measured in of_round.values():
        stream = measured.get("stream")
        if not stream:
            continue
        judged = stream["chunks"] - stream["streams"]
        stream["held_back_share"] = stream["held_back"] / judged if judged else 0.0
        if direct:
            for name in ("first_token_ms", "chunk_ms"):
                stream[f"added_{name}"] = {
                    key: value - direct[name]["p50"] for key, value in stream[name].items()
                }


def _memory(
    settings: Settings, numbers: load.Tags, failed: Failed, say: Say
) -> dict[str, Any] | None:
    """Memory of the workers of a Tidegate that was just started, at marks of requests."""
    if not settings.requests or "tidegate" not in settings.systems or "tidegate" in failed:
        return None
    alone = replace(settings, systems=("tidegate",))
    marks = [0, settings.requests // 4, settings.requests // 2, settings.requests]
    seen = []
    with _bench(alone, numbers, failed, say) as (bench, running):
        for system in running:
            say(f"memory: {settings.requests:,} requests to a fresh Tidegate")
            with _or_left_out("memory", failed, say):
                seen = measure.memory(bench, system, marks, numbers)
    return {"marks": seen, "growth": worst_growth(seen[1], seen[-1])} if seen else None


def worst_growth(first: dict[str, Any], last: dict[str, Any]) -> float | None:
    """The most that one worker grew; None when no worker lived through both marks."""
    both = first["resident_bytes"].keys() & last["resident_bytes"].keys()
    grown = [figures.growth(first["resident_bytes"][p], last["resident_bytes"][p]) for p in both]
    return max(grown) if grown else None


def _rounds(
    settings: Settings, numbers: load.Tags, failed: Failed, say: Say
) -> tuple[list[Round], dict[str, dict[str, Any]]]:
    """The rounds, and what is known of each system beside them."""
    rounds: list[Round] = []
    with _bench(settings, numbers, failed, say) as (bench, running):
        idle = measure.idle_cores(running)
        about = {s.name: {"version": s.version, "idle_cores": idle[s.name]} for s in running}
        for index in range(settings.rounds):
            of_round: Round = {}
            for system in running:
                if system.name in failed:
                    continue
                with _or_left_out(system.name, failed, say):
                    of_round[system.name] = _round(bench, system, settings, numbers, index == 0)
                    say(f"round {index + 1} of {settings.rounds}: {_line(system.name, of_round)}")
            add_to_direct(of_round)
            rounds.append(of_round)
    return rounds, about


def run(settings: Settings, say: Say) -> dict[str, Any]:
    """Measure. A system that does not start or answer truly is left out and told in ``failed``."""
    date, host = datetime.now(UTC), machine.describe()
    started = time.monotonic()
    numbers = load.tags(int(date.timestamp()))
    failed: Failed = {}
    rounds, about = _rounds(settings, numbers, failed, say)
    memory = _memory(settings, numbers, failed, say)
    systems = {
        name: {**known, **figures.medians(measured)}
        for name, known in about.items()
        if (measured := [r[name] for r in rounds if name in r])
    }
    others = _others(rounds)
    versions = {name: known["version"] for name, known in about.items()}
    return {
        "bench": "gateway",
        "date": date.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started, 1),
        "machine": host,
        "versions": {**versions, "upstream": nginx.version(), "wrk": load.version()},
        "settings": asdict(settings),
        "systems": systems,
        "memory": memory,
        "others_cores": others,
        "ratios": figures.ratios(systems),
        "bars": [bar.to_json() for bar in figures.bars(systems, memory)],
        "warnings": figures.warnings(systems, others),
        "failed": failed,
        "rounds": rounds,
    }


def _others(rounds: list[Round]) -> float:
    seen = [r[name]["miss"]["others_cores"] for r in rounds for name in r if "miss" in r[name]]
    return median(seen) if seen else 0.0


def _line(name: str, of_round: dict[str, Any]) -> str:
    words = [name]
    for case in ("miss", "hit"):
        if case in of_round[name]:
            one = of_round[name][case]
            words.append(f"{case} {one['cpu_us']:.0f} us, {one['per_second']:.0f}/s")
            if one["errors"]:
                words.append(f"{one['errors']} ERRORS")
    if "stream" in of_round[name]:
        words.append(f"first token {of_round[name]['stream']['first_token_ms']['p50']:.2f} ms")
    return ", ".join(words)
