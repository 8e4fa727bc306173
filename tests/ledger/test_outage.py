"""PostgreSQL dies by kill -9 while receipts come; it comes back; each receipt is there once."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

import msgspec
import psutil
import psycopg

from tests.ledger.samples import random_receipts
from tidegate.ledger.run import Loop
from tidegate.ledger.spool import SpoolWriter
from tidegate.release.values import LedgerSettings
from tidegate.stores.migrate import migrate
from tidegate.stores.open import running
from tidegate.stores.postgres import ensure_database, postgres_place, postgres_spec


def count(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM receipts").fetchone()
        assert row is not None
        return int(row[0])


def kill_postgres(folder: Path) -> None:
    """kill -9 for every process of the PostgreSQL in ``folder``, which this test started."""
    pid = int((postgres_place(folder).data / "postmaster.pid").read_text().split()[0])
    postmaster = psutil.Process(pid)
    family = [postmaster, *postmaster.children(recursive=True)]
    for process in family:
        os.kill(process.pid, signal.SIGKILL)
    psutil.wait_procs(family[1:], timeout=10)  # the first is our child: its owner waits for it


def wait_for_count(url: str, expected: int) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            if count(url) == expected:
                return
        except psycopg.OperationalError:
            pass
        time.sleep(0.1)
    assert count(url) == expected


def test_a_killed_postgres_costs_nothing_but_delay() -> None:
    folder = Path(tempfile.mkdtemp(prefix="tg-outage-"))
    folder.chmod(0o755)
    state, stop = folder / "app", threading.Event()
    receipts = random_receipts(3000)
    encoded = [msgspec.json.encode(receipt) for receipt in receipts]
    writer = SpoolWriter(state / "spool")
    try:
        with running(postgres_spec(folder)):
            url = ensure_database(postgres_place(folder), "outage")
            migrate(url)
            loop = Loop(state, stop, url=lambda: url, settings=LedgerSettings)
            thread = threading.Thread(target=loop.run)
            thread.start()
            for body in encoded[:1000]:
                writer.append(body)
            wait_for_count(url, 1000)
            for body in encoded[1000:2000]:
                writer.append(body)
            kill_postgres(folder)
        for body in encoded[2000:]:
            writer.append(body)
        with running(postgres_spec(folder)):
            wait_for_count(url, 3000)
            stop.set()
            thread.join(20)
            assert not thread.is_alive()
            with psycopg.connect(url) as connection:
                rows = connection.execute("SELECT sum(count) FROM rollups").fetchall()
            assert rows == [(3000,)]
    finally:
        stop.set()
        writer.close()
        shutil.rmtree(folder, ignore_errors=True)
