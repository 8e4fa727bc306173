"""An app starts in order, survives the death of any part, and leaves nothing running behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg

from tests.ports import free_port
from tidegate.base.runtime import Runtime, read_runtime
from tidegate.deploy.probes import answers_ok

ROOT = Path(__file__).parents[2]


class Up:
    """A stand-in app in a process of its own, and all the processes below it."""

    def __init__(self, app: Path) -> None:
        self.app, self.state = app, app / ".tidegate"
        self.port = port = free_port()
        self.output = app / "output"
        self.state.mkdir(exist_ok=True)
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.deploy.standin", str(self.state), str(port)],
                cwd=ROOT,
                stdout=output,
                stderr=output,
            )
        self.seen: set[psutil.Process] = set()

    def wait_ready(self) -> None:
        self.until(lambda: (self.state / "is-ready").exists() or self.process.poll() is not None)
        assert self.process.poll() is None, self.output.read_text()
        self.look()

    def look(self) -> set[psutil.Process]:
        """Every process below, remembered."""
        now = set(psutil.Process(self.process.pid).children(recursive=True))
        self.seen |= now
        return now

    def child(self, word: str) -> psutil.Process:
        """The one direct child whose command line has ``word``."""
        found = [
            child
            for child in psutil.Process(self.process.pid).children()
            if any(word in part for part in child.cmdline())
        ]
        assert len(found) == 1, found
        self.look()
        return found[0]

    def left(self) -> list[psutil.Process]:
        return [process for process in self.seen if _runs(process)]

    def until(self, holds: Callable[[], bool], within: float = 30.0) -> None:
        end = time.monotonic() + within
        while not holds():
            assert time.monotonic() < end, self.output.read_text()
            time.sleep(0.05)

    @property
    def runtime(self) -> Runtime:
        return read_runtime(self.app)


@contextmanager
def up(app: Path) -> Iterator[Up]:
    started = Up(app)
    try:
        started.wait_ready()
        yield started
    finally:
        started.process.kill()
        started.process.wait()
        _, left = psutil.wait_procs(started.seen, timeout=10)
        for process in left:  # only after a failed test
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _database_answers(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=2) as connection:
            return connection.execute("SELECT count(*) FROM keys").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def test_starts_in_order_and_stops_on_sigterm_leaving_nothing(app_folder: Path) -> None:
    with up(app_folder) as app:
        steps = [line[5:] for line in app.output.read_text().splitlines() if line.startswith("st")]
        assert steps == ["postgres", "valkey", "migrations", "pool", "gateway", "gateway is ready"]
        file = app.state / "run" / "runtime.json"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert _database_answers(app.runtime.database_url)
        token = app.state / "run" / "dev.key"
        assert (stat.S_IMODE(token.stat().st_mode), len(token.read_text())) == (0o600, 59)
        assert len(app.look()) >= 4
        app.process.terminate()
        assert app.process.wait(30) == 0
        assert app.left() == []
        assert not file.exists()


def test_kill_9_leaves_nothing_running_and_the_next_start_works(app_folder: Path) -> None:
    with up(app_folder) as app:
        assert len(app.look()) >= 4
        app.process.kill()
        app.process.wait()
        app.until(lambda: app.left() == [], within=20)
    (app.state / "is-ready").unlink()
    with up(app_folder) as again:
        assert _database_answers(again.runtime.database_url)


def test_killed_engines_come_back_and_the_gateway_is_not_touched(app_folder: Path) -> None:
    with up(app_folder) as app:
        gateway = app.child("http.server").pid
        for word in ("bin/postgres", "valkey-server"):
            engine = app.child(word)
            engine.send_signal(signal.SIGKILL)
            app.until(lambda: not engine.is_running())  # noqa: B023
        app.until(lambda: _database_answers(app.runtime.database_url))
        app.until(lambda: app.output.read_text().count("is ready again") == 2)
        assert app.child("http.server").pid == gateway
        assert answers_ok(f"{app.runtime.gateway_url}/ready")
        said = app.output.read_text()
        assert said.count("postgres was killed by signal 9") == 1
        assert said.count("valkey was killed by signal 9") == 1


def test_a_killed_part_comes_back_at_the_same_address(app_folder: Path) -> None:
    with up(app_folder) as app:
        first = app.child("http.server")
        os.kill(first.pid, signal.SIGKILL)
        app.until(lambda: not first.is_running())
        app.until(lambda: answers_ok(f"{app.runtime.gateway_url}/ready"))
        assert app.child("http.server").pid != first.pid


def test_a_second_signal_kills_what_does_not_stop(app_folder: Path) -> None:
    (app_folder / ".tidegate").mkdir()
    (app_folder / ".tidegate" / "stubborn").touch()
    with up(app_folder) as app:
        app.process.send_signal(signal.SIGINT)
        app.until(lambda: not answers_ok(f"http://127.0.0.1:{app.port}/health"))
        time.sleep(0.5)
        assert app.process.poll() is None
        app.process.send_signal(signal.SIGINT)
        app.process.wait(10)
        assert app.left() == []


def test_sigint_while_starting_stops_what_runs(app_folder: Path) -> None:
    app = Up(app_folder)
    try:
        app.until(lambda: bool(app.look()) and (app.state / "log" / "pool.log").exists())
        app.process.send_signal(signal.SIGINT)
        app.look()
        assert app.process.wait(30) == 0
        assert app.left() == []
    finally:
        app.process.kill()
        app.process.wait()
