"""Closed-loop load by wrk: a fixed number of connections, each with one request in flight."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.gateway.children import BenchError
from bench.gateway.door import DIGITS, Door

_SCRIPT = Path(__file__).with_name("load.lua")
_TAG_DIGITS = DIGITS - 10


Tags = Iterator[int]


def tags(seed: int) -> Tags:
    """Numbers that head the counter, so that no two runs of load send equal bodies."""
    return itertools.count(seed % 10 ** (_TAG_DIGITS - 4) * 10_000)


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw."""

    requests: int
    seconds: float
    errors: int
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def parse(output: str) -> Load:
    """The line that ``load.lua`` prints. Raises BenchError when there is none."""
    for line in output.splitlines():
        if line.startswith("figures "):
            raw = json.loads(line.removeprefix("figures "))
            return Load(
                requests=raw["requests"],
                seconds=raw["us"] / 1e6,
                errors=raw["errors"] + raw["timeouts"],
                p50_ms=raw["p50_us"] / 1e3,
                p99_ms=raw["p99_us"] / 1e3,
            )
    raise BenchError(f"wrk printed no figures:\n{output[-2000:]}")


def run(
    door: Door, folder: Path, *, seconds: float, connections: int, tag: int, vary: bool = True
) -> Load:
    """Load ``door`` for about ``seconds`` (whole seconds, at least one). Equal bodies when not
    ``vary``: ``tag`` then names the one body."""
    before, after = door.request()
    (folder / "before").write_bytes(before)
    (folder / "after").write_bytes(after)
    environ = {
        "BENCH_BEFORE": str(folder / "before"),
        "BENCH_AFTER": str(folder / "after"),
        "BENCH_PREFIX": f"{tag:0{_TAG_DIGITS}d}",
        "BENCH_STEP": "1" if vary else "0",
    }
    command = [
        "wrk",
        "--threads=1",
        f"--connections={connections}",
        f"--duration={max(1, round(seconds))}s",
        "--timeout=15s",
        f"--script={_SCRIPT}",
        f"http://127.0.0.1:{door.port}{door.path}",
    ]
    finished = subprocess.run(
        command,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
    )
    if finished.returncode:
        raise BenchError(f"wrk ended with {finished.returncode}: {finished.stderr[-1000:]}")
    return parse(finished.stdout)


def version() -> str:
    shown = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False)
    return shown.stdout.split()[1] if len(shown.stdout.split()) > 1 else "unknown"
