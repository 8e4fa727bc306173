"""A whole run: two servers for each cell, all systems up, all cells played side by side."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.faults import systems, tidegate
from bench.faults.client import Door, call
from bench.faults.judge import WORDS, Call, Observation, Try, Verdict, judge
from bench.faults.systems import Pair, Start, System
from bench.gateway import machine
from bench.gateway.children import BenchError
from tidegate.testing import ModelServer, Script
from tidegate.testing.scenarios import ANSWER, SCENARIOS, Recovers, Scenario

STARTS: dict[str, Start] = {
    "tidegate": tidegate.start_plain,
    "tidegate-hold": tidegate.start_holding,
    "client": systems.start_client,
    "litellm": systems.start_litellm,
    "portkey": systems.start_portkey,
    "tensorzero": systems.start_tensorzero,
}
ALL = tuple(STARTS)
Say = Callable[[str], None]
Failed = dict[str, str]
"""Systems that are left out, and why."""

_WARM = Scenario(id="S00", title="nothing is wrong", primary=Script(), limit=60)
_STAGGER = 0.4
"""Seconds between the starts of a system's scenarios, so that they do not burst on a small
machine."""
_AFTERWARDS = 30.0


@dataclass(frozen=True)
class Settings:
    """What is asked of a run."""

    systems: tuple[str, ...] = ALL
    scenarios: tuple[Scenario, ...] = SCENARIOS
    stream: bool = True


@dataclass(frozen=True)
class Servers:
    """What plays the provider and its fallback in one cell."""

    pair: Pair
    primary: ModelServer
    fallback: ModelServer


@contextlib.contextmanager
def servers(name: str) -> Iterator[Servers]:
    """Two servers that say the answer, 5 ms a token; ``play`` gives them their faults."""
    with (
        ModelServer(ANSWER, first_token=0.02, inter_token=0.005) as primary,
        ModelServer(ANSWER, first_token=0.02, inter_token=0.005) as fallback,
    ):
        yield Servers(Pair(name, primary.port, fallback.port), primary, fallback)


async def play(scenario: Scenario, door: Door, at: Servers, *, stream: bool = True) -> Observation:
    """One scenario from its start to its end."""
    for server, script in ((at.primary, scenario.primary), (at.fallback, scenario.fallback)):
        server.script = script
        server.reset()
    zero = time.monotonic()
    calls = await _calls(scenario, door, at, zero, stream)
    tries = _tries(at, zero)
    afterwards = None
    if scenario.afterwards:
        at.primary.script = at.fallback.script = Script()
        afterwards = await call(door, stream=stream, limit=_AFTERWARDS, zero=zero)
    return Observation(
        calls=tuple(calls),
        tries=tries,
        afterwards=afterwards,
        answer=ANSWER,
        fallback=at.pair.models[1],
    )


async def _calls(
    scenario: Scenario, door: Door, at: Servers, zero: float, stream: bool
) -> list[Call]:
    """The calls at their times, whether those before have ended or not; after an outage more of
    them, until the primary answers again or is late."""
    running: list[asyncio.Task[Call]] = []

    async def start(number: int) -> None:
        await asyncio.sleep(max(0.0, zero + number * scenario.every - time.monotonic()))
        asked = call(door, stream=stream, limit=scenario.limit, zero=zero)
        running.append(asyncio.create_task(asked))

    for number in range(scenario.calls):
        await start(number)
    if scenario.outage is not None:
        well, number = zero + scenario.outage, scenario.calls
        while number * scenario.every <= scenario.outage + _patience(scenario) and not any(
            t.arrived >= well and t.tokens_sent for t in at.primary.requests
        ):
            await start(number)
            number += 1
    return list(await asyncio.gather(*running))


def _patience(scenario: Scenario) -> float:
    """Seconds after an outage in which the primary should be asked again."""
    return max((c.seconds for c in scenario.checks if isinstance(c, Recovers)), default=0.0)


def _tries(at: Servers, zero: float) -> tuple[Try, ...]:
    sides = (("primary", at.primary), ("fallback", at.fallback))
    seen = [
        Try(
            side=side,  # type: ignore[arg-type]
            at=request.arrived - zero,
            size=len(request.body),
            fault=request.fault,
            tokens=request.tokens_sent or int(request.status == 200 and not request.fault),
        )
        for side, server in sides
        for request in server.requests
    ]
    return tuple(sorted(seen, key=lambda one: one.at))


Cells = dict[str, dict[str, tuple[Verdict, Observation]]]
"""System to scenario id to what came of it."""


async def _system(
    system: System, cells: dict[str, Servers], settings: Settings, say: Say, out: Cells
) -> None:
    """All scenarios of one system, side by side."""
    warm = await play(_WARM, system.door(_WARM.id), cells[_WARM.id], stream=settings.stream)
    verdict = judge(_WARM, warm)
    if verdict.word != "pass":
        raise BenchError(f"with nothing wrong: {verdict.word}, {verdict.sentence}")

    async def cell(scenario: Scenario, number: int) -> None:
        await asyncio.sleep(number * _STAGGER)
        door, at = system.door(scenario.id), cells[scenario.id]
        seen = await play(scenario, door, at, stream=settings.stream)
        verdict = judge(scenario, seen)
        out.setdefault(system.name, {})[scenario.id] = (verdict, seen)
        say(f"{system.name} {scenario.id} {verdict.word} ({verdict.seconds:.1f} s)")

    await asyncio.gather(*(cell(one, at) for at, one in enumerate(settings.scenarios)))


async def _all(
    running: dict[str, tuple[System, dict[str, Servers]]],
    settings: Settings,
    say: Say,
    failed: Failed,
) -> Cells:
    out: Cells = {}

    async def one(name: str) -> None:
        system, cells = running[name]
        try:
            await _system(system, cells, settings, say, out)
        except BenchError as error:
            failed[name] = str(error)
            say(f"{name} is left out: {error}")

    await asyncio.gather(*(one(name) for name in running))
    return out


def run(settings: Settings, say: Say) -> dict[str, Any]:
    """Play and judge. A system that does not start or answer truly is told in ``failed``."""
    date, host, started = datetime.now(UTC), machine.describe(), time.monotonic()
    failed: Failed = {}
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-faults-")))
        root.chmod(0o755)  # PostgreSQL runs as another user when this is root
        running: dict[str, tuple[System, dict[str, Servers]]] = {}
        for name in settings.systems:
            cells = {
                one.id: stack.enter_context(servers(one.id.lower()))
                for one in (_WARM, *settings.scenarios)
            }
            (folder := root / name).mkdir()
            try:
                pairs = {id_: cell.pair for id_, cell in cells.items()}
                system = stack.enter_context(STARTS[name](folder, pairs))
                running[name] = (system, cells)
                say(f"{name} {system.version} is up")
            except BenchError as error:
                failed[name] = str(error)
                say(f"{name} is left out: {error}")
        versions = {name: system.version for name, (system, _) in running.items()}
        cells_out = asyncio.run(_all(running, settings, say, failed))
    return {
        "bench": "faults",
        "date": date.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started, 1),
        "machine": host,
        "versions": versions,
        "stream": settings.stream,
        "scenarios": {one.id: one.title for one in settings.scenarios},
        "systems": {name: _result(cells_out[name]) for name in running if name in cells_out},
        "failed": failed,
    }


def _result(cells: dict[str, tuple[Verdict, Observation]]) -> dict[str, Any]:
    words = [verdict.word for verdict, _ in cells.values()]
    return {
        "counts": {word: words.count(word) for word in WORDS},
        "cells": {
            id_: {
                "word": verdict.word,
                "seconds": round(verdict.seconds, 2),
                "sentence": verdict.sentence,
                "calls": [asdict(one) for one in seen.calls],
                "tries": [asdict(one) for one in seen.tries],
            }
            for id_, (verdict, seen) in sorted(cells.items())
        },
    }
