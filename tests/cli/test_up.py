"""``tidegate up`` whole: one command to a ready gateway, one folder, one `up`, and nothing left."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.cli.command import command, run
from tidegate.deploy.probes import answers_ok

SPEC = """
app: tiny
models:
  far: {provider: openai, base_url: "http://127.0.0.1:9/v1", name: far-1}
routes:
  chat: {models: far}
"""


@pytest.fixture
def app(app_folder: Path) -> Path:
    (app_folder / "tidegate.yaml").write_text(SPEC)
    return app_folder


@contextmanager
def up(app: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A running `tidegate up --json` and what it printed."""
    options = ("--port", "0", "--operator-port", "0", "--workers", "2", "--json")
    with (
        (app / "stderr").open("wb") as errors,
        subprocess.Popen(
            command("up", app, *options),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **environment},
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, (app / "stderr").read_text()
            yield process, json.loads(line)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(60)


def below(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def names(process: subprocess.Popen[str]) -> set[str]:
    return {child.name() for child in psutil.Process(process.pid).children()}


def seconds_until(holds: Callable[[], bool], within: float = 20.0) -> float:
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < within
        time.sleep(0.02)
    return time.monotonic() - started


def get(url: str, token: str = "") -> int:
    """The status of an answer, over a connection of its own: any worker may take it."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request("GET", parts.path, headers={"authorization": f"Bearer {token}"})
        return connection.getresponse().status
    finally:
        connection.close()


def status(url: str, token: str) -> int:
    return get(f"{url}/v1/models", token)


def test_from_one_command_to_keys_that_turn_while_it_serves(app: Path) -> None:
    with up(app) as (process, ready):
        url = ready["gateway_url"]
        assert get(f"{url}/ready") == 200
        assert "notice: models.far: " in (app / "stderr").read_text()
        assert get(f"{ready['operator_url']}/health") == 200
        assert status(url, Path(ready["key_file"]).read_text()) == 200

        made = json.loads(run("keys", "create", str(app), "--name", "web", "--json").stdout)
        seconds_until(lambda: status(url, made["token"]) == 200, within=5)
        assert run("keys", "revoke", str(app), "--key", made["id"]).returncode == 0
        # every worker must know, not only the first one that is asked
        seconds_until(lambda: {status(url, made["token"]) for _ in range(8)} == {401}, within=5)

        second = run("up", str(app), "--port", "0", "--operator-port", "0", "--json")
        error = json.loads(second.stdout)["error"]
        assert (second.returncode, error["code"]) == (1, "already_running")
        assert str(process.pid) in error["message"]

        assert status(url, made["token"]) == 401
        running = below(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 0
        assert not [p for p in running if p.is_running()]
        assert not (app / ".tidegate" / "run" / "runtime.json").exists()


def test_kill_9_leaves_nothing_running(app: Path) -> None:
    with up(app) as (process, _):
        running = below(process)
        assert len(running) >= 6
        process.kill()
        process.wait()
        _, left = psutil.wait_procs(running, timeout=40)
        assert left == []


def test_killed_parts_come_back_and_requests_go_on(app: Path) -> None:
    """given a running app; when PostgreSQL and Valkey are killed -9; then keys are still known,
    and both come back; when the gateway itself is; then it comes back at the same address."""
    with up(app) as (process, ready):
        url, token = ready["gateway_url"], Path(ready["key_file"]).read_text()
        first = {child.name(): child for child in psutil.Process(process.pid).children()}
        first["postgres"].kill()
        first["valkey-server"].kill()
        assert [status(url, token) for _ in range(4)] == [200] * 4
        seconds_until(lambda: {"postgres", "valkey-server"} <= names(process))
        seconds_until(lambda: run("keys", "create", str(app), "--name", "b").returncode == 0)
        log = (app / ".tidegate" / "log" / "up.log").read_text()
        assert log.count("postgres was killed by signal 9") == 1
        gateway = next(p for p in below(process) if "tidegate.gateway" in p.cmdline())
        workers = gateway.children()
        assert len(workers) == 2
        gateway.kill()
        _, left = psutil.wait_procs([gateway, *workers], timeout=20)
        assert left == []
        seconds_until(lambda: answers_ok(f"{url}/ready"))
        assert status(url, token) == 200


def test_external_engines_are_used_and_none_is_started(
    app: Path, database_url: str, valkey_url: str
) -> None:
    given = {"TIDEGATE_DATABASE_URL": database_url, "TIDEGATE_VALKEY_URL": valkey_url}
    with up(app, **given) as (process, ready):
        assert status(ready["gateway_url"], Path(ready["key_file"]).read_text()) == 200
        assert not names(process) & {"postgres", "valkey-server"}
        assert not (app / ".tidegate" / "postgres").exists()


@pytest.mark.parametrize("option", ["--port", "--operator-port"])
def test_a_taken_port_is_told_before_anything_starts(app: Path, option: str) -> None:
    other = "--operator-port" if option == "--port" else "--port"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run("up", str(app), option, port, other, "0", "--json")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (1, "port_taken")
    assert port in error["message"]
    assert option in error["cure"]
    assert not (app / ".tidegate" / "log").exists()


def test_one_port_for_both_doors_is_told_before_anything_starts(app: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    done = run("up", str(app), "--port", port, "--operator-port", port, "--json")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (1, "port_twice")
    assert port in error["message"]
    assert not (app / ".tidegate" / "log").exists()


def test_a_mistake_in_the_spec_is_told_before_anything_starts(app: Path) -> None:
    (app / "tidegate.yaml").write_text(SPEC.replace("models: far", "models: fra"))
    done = run("up", str(app), "--port", "0", "--operator-port", "0", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "spec_invalid"
    assert not (app / ".tidegate" / "log").exists()
