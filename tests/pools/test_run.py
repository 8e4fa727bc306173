"""Pools as real processes: start, restart, failure, and no orphan."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.pools.conftest import CHAT, EMBED
from tidegate.base.errors import PoolError
from tidegate.base.supervision import Supervisor
from tidegate.pools import ModelPool, fetch_files, plan_pool, start_pool
from tidegate.pools import run as pools_run
from tidegate.registry import open_store

pytestmark = pytest.mark.timeout(600)  # the first test may have to fetch the weights


def names_its_model(pool: ModelPool) -> bool:
    assert callable(pool.spec.probe)
    return bool(pool.spec.probe())


async def until(condition: object, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):  # type: ignore[arg-type]
        assert time.monotonic() < end, "not in time"
        await asyncio.sleep(0.05)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_files_come_by_role(smollm2_gguf: Path, tmp_path: Path) -> None:
    assert fetch_files(CHAT, open_store(os.environ), tmp_path) == {"weights": smollm2_gguf}


def test_a_killed_pool_comes_back_at_the_same_address(smollm2_gguf: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        # given a pool that answers
        async with Supervisor() as supervisor:
            pool, child = await start_pool(supervisor, CHAT, {"weights": smollm2_gguf}, tmp_path)
            first = child.state.pid
            assert first is not None
            # when its process is killed
            os.kill(first, signal.SIGKILL)
            # then another one answers at the same address, with the same key
            await until(lambda: child.state.restarts == 1 and child.state.phase == "ready")
            assert child.state.pid != first
            assert await asyncio.to_thread(names_its_model, pool)
            last = child.state.pid
        # and none is left when the supervisor ends
        assert last is not None
        assert gone(last)
        assert not await asyncio.to_thread(names_its_model, pool)

    asyncio.run(scenario())


PARENT = """
import asyncio, pathlib, sys
from tests.pools.conftest import CHAT, EMBED
from tidegate.base.supervision import Supervisor
from tidegate.pools import start_pool

async def main(state, gguf, weights, tokenizer):
    async with Supervisor() as supervisor:
        _, chat = await start_pool(supervisor, CHAT, {"weights": gguf}, state)
        files = {"weights": weights, "tokenizer": tokenizer}
        _, embed = await start_pool(supervisor, EMBED, files, state)
        print(chat.state.pid, embed.state.pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main(*map(pathlib.Path, sys.argv[1:])))
"""


def test_no_pool_outlives_a_parent_that_was_killed(
    smollm2_gguf: Path, minilm_files: dict[str, Path], tmp_path: Path
) -> None:
    files = [str(smollm2_gguf), str(minilm_files["weights"]), str(minilm_files["tokenizer"])]
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), *files], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert not any(gone(pid) for pid in pids)
        parent.kill()
    end = time.monotonic() + 10
    while not all(gone(pid) for pid in pids):
        assert time.monotonic() < end, "a pool outlives its parent"
        time.sleep(0.05)


def test_a_pool_that_cannot_start_says_why_and_is_not_left_running(tmp_path: Path) -> None:
    async def scenario() -> None:
        weights = tmp_path / "broken.gguf"
        weights.write_bytes(b"GGUF? no" * 100)
        async with Supervisor() as supervisor:
            with pytest.raises(PoolError) as failed:
                await start_pool(supervisor, CHAT, {"weights": weights}, tmp_path)
            assert failed.value.code == "pool_not_ready"
            assert "engine_failed" in failed.value.message
            assert supervisor.states[0].pid is None

    asyncio.run(scenario())


def test_a_port_that_was_taken_meanwhile_is_left_for_another(
    minilm_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        with socket.socket() as stranger:
            stranger.bind(("127.0.0.1", 0))
            stranger.listen()
            taken = stranger.getsockname()[1]
            offered = [taken]
            choose = pools_run.free_port
            monkeypatch.setattr(
                pools_run, "free_port", lambda: offered.pop() if offered else choose()
            )
            async with Supervisor() as supervisor:
                pool, _ = await start_pool(supervisor, EMBED, minilm_files, tmp_path)
                assert pool.port != taken
                assert await asyncio.to_thread(names_its_model, pool)

    asyncio.run(scenario())


def test_two_llama_servers_cannot_share_a_port(
    chat_pool: ModelPool, smollm2_gguf: Path, tmp_path: Path
) -> None:
    async def scenario() -> None:
        second = plan_pool(CHAT, {"weights": smollm2_gguf}, tmp_path, port=chat_pool.port)
        async with Supervisor() as supervisor:
            child = supervisor.add(second.spec)
            with pytest.raises(Exception, match="port is taken"):
                await child.ready()

    asyncio.run(scenario())
    answer = httpx.get(f"http://127.0.0.1:{chat_pool.port}/health")
    assert answer.status_code == 200
