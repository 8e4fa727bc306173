"""One measurement: load a system, account for its processes, look that nothing was amiss."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.gateway import cpu, load, nginx, streams
from bench.gateway.children import BenchError, Product
from bench.gateway.door import COUNTER, DIGITS, Door
from bench.gateway.systems import System

_QUIET = 0.05
"""Cores: a product that uses less is taken to have finished its work behind the answers."""


@dataclass(frozen=True)
class Bench:
    """What every measurement of a run shares."""

    folder: Path
    upstream_port: int
    tools: tuple[Product, ...]
    """Processes of the bench itself, left out of ``others``."""
    connections: int
    stream_connections: int
    seconds: float
    patience: float
    """Most seconds that are waited for a product's work behind the answers."""


def answer_of(door: Door, number: int = 0) -> httpx.Response:
    """One plain request through ``door``."""
    body = door.body.replace(COUNTER, f"{number:0{DIGITS}d}")
    return httpx.post(
        f"http://127.0.0.1:{door.port}{door.path}",
        content=body,
        headers={"content-type": "application/json", **door.headers},
        timeout=30,
    )


def verify(system: System, tag: int) -> None:
    """A system that does not answer truly may not be measured. Raises BenchError."""
    answer = answer_of(system.chat, tag * 10**10)
    if answer.status_code != 200:
        raise BenchError(f"{system.name} answered {answer.status_code}: {answer.text[:1000]}")
    told = answer.json()["choices"][0]["message"]["content"]
    if json.loads(told) != nginx.PLAN:
        raise BenchError(f"{system.name} changed the answer to {told[:500]!r}")
    if not streams.run(system.stream, seconds=0.1, connections=1, tag=tag):
        raise BenchError(f"{system.name} did not stream")


def _quiet(product: Product, deadline: float) -> cpu.Usage:
    """CPU so far once the product has gone quiet, or when the time is over."""
    last = product.usage()
    while time.monotonic() < deadline:
        time.sleep(0.4)
        now = product.usage()
        if (now.total - last.total) / (now.at - last.at) < _QUIET:
            return now
        last = now
    return last


@dataclass(frozen=True)
class Settled:
    """A product after the load: its CPU with the work behind the answers in it."""

    usage: cpu.Usage
    receipts: int | None
    """Receipts in the database so far; None when the product writes none or was not done."""


def settle(bench: Bench, system: System) -> Settled:
    """Wait for the work behind the answers: loaders, logs, writers. Bounded by ``patience``."""
    deadline, end = time.monotonic() + bench.patience, time.time()
    if system.level is None:
        return Settled(_quiet(system.product, deadline), None)
    while (receipts := system.level(end)) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return Settled(system.product.usage(), receipts)


def _own(bench: Bench) -> float:
    times = os.times()
    mine = times.user + times.system + times.children_user + times.children_system
    return mine + sum(tool.usage().total for tool in bench.tools)


def chat(bench: Bench, system: System, door: Door, tag: int, *, vary: bool) -> dict[str, object]:
    """Figures of one closed-loop run of plain requests: CPU in microseconds a request."""
    receipts = settle(bench, system).receipts
    before, own, machine = system.product.usage(), _own(bench), cpu.machine_busy()
    answered = nginx.requests_answered(bench.upstream_port)
    seen = load.run(
        door,
        bench.folder,
        seconds=bench.seconds,
        connections=bench.connections,
        tag=tag,
        vary=vary,
    )
    during = system.product.usage()
    upstream = nginx.requests_answered(bench.upstream_port) - answered - 1
    busy = cpu.machine_busy() - machine
    others = busy - (during.total - before.total) - (_own(bench) - own)
    settled = settle(bench, system)
    if seen.requests == 0:
        raise BenchError(f"{system.name} answered nothing in {seen.seconds:.1f} s")
    # wrk hangs up with requests in flight; the work for them is done and is counted too
    served = max(seen.requests, upstream)
    spent = cpu.used(before, settled.usage)
    figures: dict[str, object] = {
        "cpu_us": sum(spent.values()) / served * 1e6,
        "cpu_us_during": (during.total - before.total) / served * 1e6,
        "cpu_us_by_group": {name: s / served * 1e6 for name, s in spent.items()},
        "per_second": seen.per_second,
        "p50_ms": seen.p50_ms,
        "p99_ms": seen.p99_ms,
        "upstream_share": upstream / seen.requests,
        "behind_seconds": settled.usage.at - during.at,
        "others_cores": max(0.0, others) / (during.at - before.at),
        "requests": seen.requests,
        "errors": seen.errors,
    }
    if receipts is not None and settled.receipts is not None:
        figures["receipts_share"] = (settled.receipts - receipts) / seen.requests
    return figures


def stream(bench: Bench, system: System, tag: int) -> dict[str, object]:
    """Figures of one run of streamed requests: CPU in microseconds an answer, delays in ms."""
    settle(bench, system)
    before = system.product.usage()
    seen = streams.run(
        system.stream, seconds=bench.seconds, connections=bench.stream_connections, tag=tag
    )
    spent = cpu.used(before, settle(bench, system).usage)
    return {
        "cpu_us": sum(spent.values()) / len(seen) * 1e6,
        "cpu_us_by_group": {name: s / len(seen) * 1e6 for name, s in spent.items()},
        **streams.figures(seen),
    }


def idle_cores(running: list[System], seconds: float = 2.0) -> dict[str, float]:
    """Cores that each system uses while nothing is asked of it."""
    before = {system.name: system.product.usage() for system in running}
    time.sleep(seconds)
    out = {}
    for system in running:
        now = system.product.usage()
        spent = now.total - before[system.name].total
        out[system.name] = spent / (now.at - before[system.name].at)
    return out


def memory(
    bench: Bench, system: System, marks: list[int], numbers: load.Tags
) -> list[dict[str, object]]:
    """Resident bytes of each worker after so many requests; ``marks`` rise, 0 is before any."""
    assert system.worker is not None
    done, out = 0, []
    rate = 20_000.0  # more than any gateway here does, so that the first mark is not overrun
    for mark in marks:
        while done < mark:
            seconds = min(20.0, max(1.0, (mark - done) / rate))
            seen = load.run(
                system.chat,
                bench.folder,
                seconds=seconds,
                connections=bench.connections,
                tag=next(numbers),
            )
            done, rate = done + seen.requests, seen.per_second
        settle(bench, system)
        sizes = {str(pid): cpu.resident_bytes(pid) for pid in system.worker()}
        out.append({"requests": done, "resident_bytes": sizes})
    return out
