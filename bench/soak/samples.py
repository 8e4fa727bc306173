"""What is looked at while the soak runs: memory, open files, tasks, keys, gauges."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import msgspec
import psutil

from tidegate.base.runtime import Runtime
from tidegate.ledger.gauges import read_gauges
from tidegate.stores.counters import read_counters
from tidegate.stores.valkey_client import ValkeyClient
from tidegate.stores.windows import PREFIX


class WorkerSample(msgspec.Struct, frozen=True):
    pid: int
    rss: int
    """Bytes."""
    files: int
    gauges: dict[str, float]


class Sample(msgspec.Struct, frozen=True):
    """Everything at one moment; ``at`` is seconds since the load began."""

    at: float
    workers: dict[int, WorkerSample]
    valkey_keys: int
    sent: int


class Sampler:
    """Takes samples of the app whose state folder is given."""

    def __init__(self, state: Path) -> None:
        self._runtime = msgspec.json.decode(
            (state / "run" / "runtime.json").read_bytes(), type=Runtime
        )
        self._valkey = ValkeyClient(self._runtime.valkey_url, deadline=2.0)
        self.began = time.monotonic()

    @property
    def runtime(self) -> Runtime:
        return self._runtime

    async def __aenter__(self) -> Sampler:
        await self._valkey.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._valkey.stop()

    async def take(self, sent: int) -> Sample:
        workers = {}
        for number, told in read_gauges(self._runtime.run).items():
            process = psutil.Process(told.pid)
            workers[number] = WorkerSample(
                told.pid, process.memory_info().rss, process.num_fds(), told.gauges
            )
        keys = int(await self._valkey.call(b"DBSIZE"))
        return Sample(time.monotonic() - self.began, workers, keys, sent)

    async def keys_for_ever(self) -> list[str]:
        """Valkey keys that never expire, a hundred at most: each is a leak."""
        found: list[str] = []
        cursor = b"0"
        while True:
            cursor, names = await self._valkey.call(b"SCAN", cursor, b"COUNT", 500)
            for name in names:
                if await self._valkey.call(b"PTTL", name) == -1:
                    found.append(name.decode("latin-1"))
            if cursor == b"0" or len(found) > 100:
                return found

    async def reserved(self) -> dict[str, int]:
        """What the counters of limits hold as reserved, where it is not 0."""
        found = await read_counters(self._valkey, PREFIX)
        return {name: state.reserved for name, state in found.items() if state.reserved}

    async def until_quiet(self, patience: float, sent: int) -> Sample:
        """Samples until every gauge that must be 0 is, or ``patience`` seconds are over; the
        last one."""
        end = time.monotonic() + patience
        while True:
            await asyncio.sleep(1.0)
            sample = await self.take(sent)
            busy = [
                value
                for worker in sample.workers.values()
                for name, value in worker.gauges.items()
                if name not in ALWAYS and value
            ]
            if not busy or time.monotonic() > end:
                return sample


ALWAYS = frozenset({"tasks", "connections", "upstream_idle"})
"""Gauges that need not be 0 when nothing runs."""
