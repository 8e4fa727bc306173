"""A comparison from start to end: install both sides, run them in turns, sum up."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.commits.figures import bars, compare, warnings
from bench.commits.trees import (
    WORKING_TREE,
    Side,
    differing_requirements,
    install,
    require_own_code,
)
from bench.gateway import cpu, load, machine, measure, nginx, streams
from bench.gateway.run import Say, add_to_direct
from bench.gateway.systems import System, Upstreams, start_direct
from bench.gateway.tidegate import start_tidegate

_REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Settings:
    """What is asked. ``seconds`` is of one measurement."""

    base: str
    head: str = WORKING_TREE
    runs: int = 5
    seconds: float = 4.0
    connections: int = 16
    stream_connections: int = 8


def run(settings: Settings, say: Say) -> dict[str, Any]:
    """Measure. Raises BenchError when a side cannot be installed, started or trusted."""
    date, host, started = datetime.now(UTC), machine.describe(), time.monotonic()
    numbers = load.tags(int(date.timestamp()))
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-bench-")))
        root.chmod(0o755)  # PostgreSQL runs as another user when this is root
        sides = _sides(settings, root, say)
        bench, upstreams = _bench(settings, root, stack)
        runs = []
        for index in range(settings.runs):
            # Each run starts afresh, and who comes first changes: a machine that slows down, or
            # one that is warm, favours neither side.
            order = sides if index % 2 == 0 else sides[::-1]
            measured = {
                side.name: _measure(side, root / f"{side.name}-{index}", bench, upstreams, numbers)
                for side in order
            }
            direct = _direct(root / f"direct-{index}", bench, upstreams, numbers)
            add_to_direct({**measured, "direct": {"stream": direct}})
            runs.append(measured)
            say(f"run {index + 1} of {settings.runs}: {_line(measured)}")
    compared = compare(runs)
    base, head = sides
    differing = differing_requirements(base, head)
    return {
        "bench": "commits",
        "date": date.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started, 1),
        "machine": host,
        "base": base.commit,
        "head": head.commit,
        "settings": asdict(settings),
        "figures": [one.to_json() for one in compared],
        "bars": [bar.to_json() for bar in bars(compared)],
        "warnings": [
            *warnings(runs, compared),
            *([f"both ran on this environment's packages: {differing}"] if differing else []),
        ],
        "runs": runs,
    }


def _sides(settings: Settings, root: Path, say: Say) -> tuple[Side, Side]:
    base = install(_REPOSITORY, settings.base, "base", root / "base")
    head = install(_REPOSITORY, settings.head, "head", root / "head")
    say(f"base is {base.commit}, head is {head.commit}")
    return base, head


def _bench(settings: Settings, root: Path, stack: ExitStack) -> tuple[measure.Bench, Upstreams]:
    folders = [root / name for name in ("upstream", "upstream-stream", "client")]
    for folder in folders:
        folder.mkdir()
    upstream, chat = stack.enter_context(nginx.upstream(folders[0]))
    streaming, stream = stack.enter_context(nginx.stream_upstream(folders[1]))
    bench = measure.Bench(
        folders[2],
        chat,
        (upstream, streaming),
        settings.connections,
        settings.stream_connections,
        settings.seconds,
        patience=30.0,
    )
    return bench, Upstreams(chat, stream)


def _measure(
    side: Side, folder: Path, bench: measure.Bench, upstreams: Upstreams, numbers: load.Tags
) -> dict[str, Any]:
    """One run of one side, from its start to its end."""
    folder.mkdir()
    with start_tidegate(folder, upstreams, metered=True, program=side.program) as system:
        measure.verify(system, next(numbers))
        require_own_code(side, system.product)
        before = _resident(system)
        out: dict[str, Any] = {}
        doors = {"miss": system.chat, "hit": system.hit, "limited": system.metered}
        for case, door in doors.items():
            assert door is not None
            vary, tag = case != "hit", next(numbers)
            warm = 2.0 if case == "miss" else 1.0
            connections = bench.connections
            load.run(door, bench.folder, seconds=warm, connections=connections, tag=tag, vary=vary)
            tag = next(numbers) if vary else tag
            out[case] = measure.chat(bench, system, door, tag, vary=vary)
        out["stream"] = measure.stream(bench, system, next(numbers))
        out["memory"] = {"before_mib": before, "after_mib": _resident(system)}
        return out


def _resident(system: System) -> float:
    assert system.worker is not None
    return max(cpu.resident_bytes(pid) for pid in system.worker()) / 2**20


def _direct(
    folder: Path, bench: measure.Bench, upstreams: Upstreams, numbers: load.Tags
) -> dict[str, object]:
    """The way without a gateway: what first tokens are compared against."""
    folder.mkdir()
    with start_direct(folder, upstreams) as system:
        seen = streams.run(
            system.stream,
            seconds=bench.seconds / 2,
            connections=bench.stream_connections,
            tag=next(numbers),
        )
    return streams.figures(seen)


def _line(measured: dict[str, dict[str, Any]]) -> str:
    cases = {"miss": "miss", "hit": "hit", "limited": "one limit", "stream": "streamed"}
    words = [
        f"{name} {measured['base'][case]['cpu_us']:.0f} -> {measured['head'][case]['cpu_us']:.0f}"
        for case, name in cases.items()
    ]
    return ", ".join(words) + " us"
