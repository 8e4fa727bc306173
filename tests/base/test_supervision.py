"""Children are started again when they end or hang, and stop in the reverse order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tidegate.base import supervision
from tidegate.base.children import ChildSpec
from tidegate.base.errors import RuntimeStateError, StoreError
from tidegate.base.supervision import Supervised, Supervisor

SLEEP = "import time; time.sleep(60)"


def spec_of(tmp_path: Path, name: str = "a", code: str = SLEEP, **fields: object) -> ChildSpec:
    return ChildSpec(
        name=name,
        argv=(sys.executable, "-c", code),
        log=tmp_path / f"{name}.log",
        **fields,  # type: ignore[arg-type]
    )


async def until(holds: Callable[[], bool], within: float = 15.0) -> None:
    async with asyncio.timeout(within):
        while True:
            if holds():
                return
            await asyncio.sleep(0.02)


def pid_of(child: Supervised) -> int:
    pid = child.state.pid
    assert pid is not None
    return pid


def test_a_killed_child_comes_back_and_the_log_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with Supervisor() as supervisor:
            child = supervisor.add(spec_of(tmp_path))
            await child.ready()
            first = pid_of(child)
            os.kill(first, signal.SIGKILL)
            await until(lambda: child.state.phase == "ready" and child.state.pid != first)
            assert child.state.restarts == 1

    caplog.set_level(logging.INFO, "tidegate.children")
    asyncio.run(scenario())
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert said[0].startswith("a was killed by signal 9 after")
    assert said[1].startswith("a is ready again as process")


def test_a_child_that_is_killed_from_outside_before_it_is_ready_gets_a_second_life(
    tmp_path: Path,
) -> None:
    ready = tmp_path / "ready"

    async def scenario() -> None:
        async with Supervisor() as supervisor:
            child = supervisor.add(spec_of(tmp_path, probe=ready.exists))
            await until(lambda: child.state.pid is not None)
            os.kill(pid_of(child), signal.SIGKILL)
            await until(lambda: child.state.restarts == 1)
            ready.touch()
            await asyncio.wait_for(child.ready(), 15)

    asyncio.run(scenario())


def test_a_child_that_is_killed_again_and_again_before_it_is_ready_is_told(tmp_path: Path) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"

    async def scenario() -> None:
        async with Supervisor() as supervisor:
            child = supervisor.add(spec_of(tmp_path, code=code, probe=lambda: False))
            with pytest.raises(RuntimeStateError, match="ended with -9"):
                await asyncio.wait_for(child.ready(), 15)

    asyncio.run(scenario())


def test_the_last_started_stops_first(tmp_path: Path) -> None:
    code = """
import signal, sys, time
def stop(*_):
    open("order", "a").write(sys.argv[1])
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
open(sys.argv[1], "w").close()
time.sleep(60)
"""

    async def scenario() -> None:
        async with Supervisor() as supervisor:
            for name in "abc":
                spec = ChildSpec(
                    name=name,
                    argv=(sys.executable, "-c", code, name),
                    log=tmp_path / f"{name}.log",
                    cwd=tmp_path,
                    probe=(tmp_path / name).exists,
                )
                await supervisor.add(spec).ready()
            assert [state.phase for state in supervisor.states] == ["ready"] * 3

    asyncio.run(scenario())
    assert (tmp_path / "order").read_text() == "cba"


def test_a_first_life_that_fails_is_told_and_nothing_stays(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Supervisor() as supervisor:
            child = supervisor.add(
                spec_of(tmp_path, code="raise SystemExit('no weights')", probe=bool)
            )
            with pytest.raises(RuntimeStateError, match="no weights"):
                await asyncio.wait_for(child.ready(), 10)
        assert child.state.pid is None

    asyncio.run(scenario())


def test_a_child_that_stops_answering_is_killed_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "_PROBE_EVERY", 0.1)
    healthy = tmp_path / "healthy"
    healthy.touch()

    async def scenario() -> None:
        async with Supervisor() as supervisor:
            child = supervisor.add(spec_of(tmp_path, probe=healthy.exists))
            await child.ready()
            first = pid_of(child)
            healthy.unlink()
            await until(lambda: not psutil.pid_exists(first))
            healthy.touch()
            await until(lambda: child.state.phase == "ready" and child.state.pid != first)

    asyncio.run(scenario())


def test_a_start_that_is_not_possible_yet_is_tried_again(tmp_path: Path) -> None:
    tries: list[int] = []

    def prepare() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise StoreError("postgres_in_use", "in use", cure="wait")
        if len(tries) == 2:
            raise OSError(28, "No space left on device")

    async def scenario() -> None:
        async with Supervisor() as supervisor:
            child = supervisor.add(spec_of(tmp_path, prepare=prepare))
            with pytest.raises(StoreError):
                await child.ready()
            await until(lambda: child.state.phase == "ready")
            assert child.state.restarts == 2

    asyncio.run(scenario())


def test_a_child_that_keeps_dying_is_failing_and_still_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.base.restarts.FIRST_DELAY", 0.001)
    monkeypatch.setattr("tidegate.base.restarts.FAILING_DELAY", 0.01)

    async def scenario() -> None:
        async with Supervisor() as supervisor:
            child = supervisor.add(spec_of(tmp_path, code="raise SystemExit(1)"))
            await until(lambda: child.state.phase == "failing", within=30)
            before = child.state.restarts
            assert "failing" in child.state.sentence
            await until(lambda: child.state.restarts > before)

    asyncio.run(scenario())


def test_kill_ends_a_child_that_would_not_stop(tmp_path: Path) -> None:
    up = tmp_path / "up"
    code = f"import signal, time; signal.signal(15, signal.SIG_IGN); open({str(up)!r}, 'w').close()"

    async def scenario() -> None:
        async with Supervisor() as supervisor:
            spec = spec_of(tmp_path, code=f"{code}; time.sleep(60)", probe=up.exists, grace=60.0)
            child = supervisor.add(spec)
            await child.ready()
            pid = pid_of(child)
            stopping = asyncio.create_task(supervisor.stop())
            await asyncio.sleep(0.1)
            assert psutil.pid_exists(pid)
            supervisor.kill()
            await asyncio.wait_for(stopping, 5)
            assert not psutil.pid_exists(pid)

    asyncio.run(scenario())
