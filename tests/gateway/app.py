"""A gateway process over a hand-made release, as the tests of this folder need it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psycopg

from tests.conftest import TEMPLATE, _fresh_database
from tests.ports import free_port
from tidegate.base.runtime import Runtime, write_runtime
from tidegate.ledger.receipts import Receipt
from tidegate.ledger.spool_reader import read_chunk, spool_files
from tidegate.registry.releases import put
from tidegate.release.values import Release
from tidegate.stores.postgres import PostgresPlace
from tidegate.switches import create_key


class GatewayProcess:
    """``python -m tidegate.gateway`` on a free port; stopped with everything it started."""

    def __init__(
        self,
        folder: Path,
        release: Release,
        database_url: str,
        valkey_url: str,
        *,
        workers: int = 1,
        drain: float | None = None,
        pools: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.state = folder / ".tidegate"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._workers = workers
        self._drain = () if drain is None else ("--drain", str(drain))
        # Patient, so that a machine with other work does not look like a store that is away.
        self._environment = {"TIDEGATE_VALKEY_DEADLINE": "500ms", **(environment or {})}
        digest = put(self.state / "registry", release, lambda path: iter(()))
        self.digest = digest
        self.runtime = Runtime(
            app=str(folder),
            state=str(self.state),
            pid=os.getpid(),
            release=digest,
            database_url=database_url,
            valkey_url=valkey_url,
            gateway_url=self.url,
            operator_url="http://127.0.0.1:1",
            operator_token="unused",
            pools=pools or {},
        )
        write_runtime(self.runtime)
        with psycopg.connect(database_url) as connection:
            self.key = create_key(connection, name="test", tenant="acme").token
        self.process: subprocess.Popen[bytes] | None = None
        self._before: set[str] = set()

    def forget(self) -> None:
        """Count receipts from here on."""
        self._before = {receipt.id for receipt in read_spool(self.runtime.spool)}

    def start(self) -> GatewayProcess:
        self.log = self.state / "gateway.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "tidegate.gateway", "--state", str(self.state),
                    "--port", str(self.port), "--workers", str(self._workers), *self._drain,
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, **self._environment},
            )  # fmt: skip
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{self.url}/ready", timeout=1).status_code == 200:
                    return self
            except httpx.HTTPError:
                pass
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"the gateway is not ready:\n{self.log.read_text()[-3000:]}")

    def stop(self, timeout: float = 15) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def client(self, **settings: Any) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20, **settings)

    def receipts(self, count: int = 0, timeout: float = 10) -> list[Receipt]:
        """The receipts in the spool, in order of arrival, once there are ``count`` of them."""
        deadline = time.monotonic() + timeout
        while True:
            found = [r for r in read_spool(self.runtime.spool) if r.id not in self._before]
            # Not by id: those of one millisecond are in no order.
            found.sort(key=lambda receipt: receipt.at)
            if len(found) >= count or time.monotonic() > deadline:
                return found
            time.sleep(0.02)


@contextmanager
def own_gateway(
    folder: Path, release: Release, postgres: PostgresPlace, valkey: Path, **more: Any
) -> Iterator[GatewayProcess]:
    """A gateway that serves ``release``, with a database of its own in the session's PostgreSQL;
    ``more`` as of ``GatewayProcess``."""
    with contextmanager(_fresh_database)(postgres, TEMPLATE) as database_url:
        process = GatewayProcess(folder, release, database_url, f"unix://{valkey}", **more)
        try:
            yield process.start()
        finally:
            process.stop()


def read_spool(folder: Path) -> list[Receipt]:
    chunks = [read_chunk(path, 0, records=1 << 20, size=1 << 30) for path in spool_files(folder)]
    return [
        msgspec.json.decode(record.receipt, type=Receipt)
        for chunk in chunks
        for record in chunk.records
    ]
