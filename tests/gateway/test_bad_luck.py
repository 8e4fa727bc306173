"""Stores die, disks fill, workers are killed: requests go on, every receipt is kept, once."""

from __future__ import annotations

import collections
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import psutil
import psycopg
import pytest

from tests.gateway.app import GatewayProcess
from tests.gateway.releases import sample_release
from tests.gateway.test_bad_input import CHAT, USER, eventually
from tests.gateway.test_cache import plan
from tests.ports import free_port
from tidegate.base.children import Child
from tidegate.base.errors import RuntimeStateError
from tidegate.gateway.__main__ import beats, listen
from tidegate.release.values import LedgerSettings, Model
from tidegate.stores.postgres import (
    ensure_database,
    postgres_place,
    postgres_spec,
)
from tidegate.stores.valkey import valkey_socket, valkey_spec
from tidegate.switches import create_key
from tidegate.testing import ModelServer, Script


@contextmanager
def own_gateway(
    folder: Path, database_url: str, valkey_url: str, upstream: ModelServer, **more: object
) -> Iterator[GatewayProcess]:
    process = GatewayProcess(
        folder, sample_release(upstream.base_url), database_url, valkey_url, **more
    )
    try:
        yield process.start()
    finally:
        process.stop()


def workers(gateway: GatewayProcess) -> list[psutil.Process]:
    assert gateway.process is not None
    children = psutil.Process(gateway.process.pid).children(recursive=True)
    return [child for child in children if "tidegate.gateway.worker" in child.cmdline()]


def test_given_load_when_workers_are_killed_then_every_answer_has_exactly_one_receipt(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    with (
        own_gateway(tmp_path, database_url, valkey_url, upstream, workers=2) as gateway,
        psycopg.connect(database_url, autocommit=True) as connection,
    ):
        loader = start_loader(gateway)
        eventually(lambda: len(workers(gateway)) == 2)
        answered: collections.Counter[str] = collections.Counter()
        lock, stop = threading.Lock(), threading.Event()

        def load(stream: bool) -> None:
            body = {"model": "plain", "messages": USER, "stream": stream}
            with gateway.client() as client:
                while not stop.is_set():
                    try:
                        answer = client.post(CHAT, json=body)
                    except httpx.HTTPError:
                        continue  # cut by the kill: no whole answer, so no promise
                    if answer.status_code == 200 and (not stream or "[DONE]" in answer.text):
                        with lock:
                            answered[answer.headers["x-request-id"]] += 1

        threads = [threading.Thread(target=load, args=(n % 2 == 0,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            time.sleep(0.7)
            before = sum(answered.values())
            workers(gateway)[0].send_signal(signal.SIGKILL)
            loader.kill()
            loader.wait()
            loader = start_loader(gateway)
            eventually(lambda: sum(answered.values()) > before + 20, 10)  # noqa: B023
        stop.set()
        for thread in threads:
            thread.join()
        assert len(answered) > 100
        try:
            eventually(lambda: answered.keys() <= set(loaded(connection)), 20)
        finally:
            loader.kill()
            loader.wait()
        assert {id: n for id, n in loaded(connection).items() if n != 1} == {}
        assert max(answered.values()) == 1, "request ids are unique"


def start_loader(gateway: GatewayProcess) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tidegate.ledger", "--state", str(gateway.state)]
    with gateway.log.open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def loaded(connection: psycopg.Connection) -> collections.Counter[str]:
    rows = connection.execute("SELECT id FROM receipts").fetchall()
    return collections.Counter(str(row[0]).replace("-", "") for row in rows)


def test_given_valkey_dies_then_requests_go_on_and_the_cache_comes_back_by_itself(
    tmp_path: Path, database_url: str, upstream: ModelServer
) -> None:
    (tmp_path / "v").mkdir()
    spec = valkey_spec(tmp_path / "v")
    child = Child(spec)
    child.wait_ready()
    url = f"unix://{valkey_socket(tmp_path / 'v')}"
    try:
        with own_gateway(tmp_path, database_url, url, upstream) as gateway:
            assert plan(gateway).headers["x-tidegate-cache"] == "miss"
            assert plan(gateway).headers["x-tidegate-cache"] == "hit"
            # when it freezes
            os.kill(child.pid, signal.SIGSTOP)
            # one patience at most: with several its deadline would be over and it would fail
            assert plan(gateway, "frozen").status_code == 200
            os.kill(child.pid, signal.SIGCONT)
            # when it is killed
            child.kill()
            assert plan(gateway, "gone").headers["x-tidegate-cache"] == "down"
            child = Child(spec)
            child.wait_ready()
            log = gateway.state / "log" / "gateway-1.log"
            eventually(lambda: "valkey is back" in log.read_text(), 10)
            assert plan(gateway, "after").headers["x-tidegate-cache"] == "miss"
            said = log.read_text().count("caching is off until it is back")
            assert 1 <= said <= 3, "said once each time"
    finally:
        child.kill()


def test_given_postgresql_dies_then_requests_go_on_and_new_keys_come_when_it_is_back(
    tmp_path: Path, valkey_url: str, upstream: ModelServer, engines_folder: Path
) -> None:
    from tidegate.stores.migrate import migrate

    folder = engines_folder / "own"
    folder.mkdir()
    spec, place = postgres_spec(folder), postgres_place(folder)
    if spec.prepare is not None:
        spec.prepare()
    child = Child(spec)
    child.wait_ready()
    try:
        url = ensure_database(place, "app")
        migrate(url)
        with own_gateway(tmp_path, url, valkey_url, upstream) as gateway:
            child.kill()
            with gateway.client() as client:
                body = {"model": "plain", "messages": USER}
                for _ in range(20):
                    assert client.post(CHAT, json=body).status_code == 200
            workers(gateway)[0].send_signal(signal.SIGKILL)  # and a worker starts without it
            eventually(lambda: serves(gateway), 10)
            assert len(gateway.receipts(21)) >= 21
            child = Child(spec)
            child.wait_ready()
            with psycopg.connect(url) as connection:
                late = create_key(connection, name="late").token
            bearer = {"authorization": f"Bearer {late}"}
            eventually(lambda: httpx.get(f"{gateway.url}/v1/models", headers=bearer).is_success, 15)
            log = (gateway.state / "log" / "gateway-1.log").read_text()
            assert log.count("degraded: keys and switches stay") <= 2, "once for each worker's life"
            assert "recovered: keys and switches are fresh again" in log
    finally:
        child.kill()


def serves(gateway: GatewayProcess) -> bool:
    try:
        with gateway.client() as client:
            body = {"model": "plain", "messages": USER}
            return client.post(CHAT, json=body).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk of its own needs root (mount tmpfs)")
def test_given_a_full_disk_then_requests_go_on_and_receipts_wait(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    spool = tmp_path / ".tidegate" / "spool"
    spool.mkdir(parents=True)
    if os.system(f"mount -t tmpfs -o size=64k tmpfs {spool} 2>/dev/null") != 0:
        pytest.skip("this machine lets nobody mount")
    try:
        with own_gateway(tmp_path, database_url, valkey_url, upstream) as gateway:
            with gateway.client() as client:
                body = {"model": "plain", "messages": USER}
                ids = [client.post(CHAT, json=body).headers["x-request-id"] for _ in range(120)]
                assert client.get("/ready").json()["spool"] == "degraded"
                assert len(gateway.receipts()) < len(ids)
                # when there is room again
                assert os.system(f"mount -o remount,size=4m {spool}") == 0
                eventually(lambda: client.get("/ready").json()["spool"] == "ok")
            assert sorted(r.id for r in gateway.receipts(len(ids))) == sorted(ids)
            log = (gateway.state / "log" / "gateway-1.log").read_text()
            assert log.count("kept in memory") == 1
    finally:
        os.system(f"umount -l {spool}")


def test_given_sigterm_then_running_streams_finish_and_nothing_new_is_taken(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    upstream.script = Script.of("slow_first_token=1s")
    with own_gateway(tmp_path, database_url, valkey_url, upstream) as gateway:
        answers: list[httpx.Response] = []

        def ask() -> None:
            with gateway.client() as client:
                body = {"model": "plain", "messages": USER, "stream": True}
                answers.append(client.post(CHAT, json=body))

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.4)
        gateway.stop()
        thread.join()
        assert "[DONE]" in answers[0].text
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{gateway.url}/health")


def test_given_a_worker_that_hangs_then_its_pulse_stops_and_its_probe_says_no(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    with own_gateway(tmp_path, database_url, valkey_url, upstream) as gateway:
        (worker,) = workers(gateway)
        alive = gateway.state / "run" / "gateway-1.alive"
        assert beats(alive)
        worker.send_signal(signal.SIGSTOP)
        eventually(lambda: not beats(alive), 15)
        worker.send_signal(signal.SIGCONT)
        eventually(lambda: beats(alive), 5)


def test_given_a_worker_that_cannot_start_then_the_gateway_says_why_and_ends(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    release = msgspec.structs.replace(
        sample_release(upstream.base_url), ledger=LedgerSettings(redact="nowhere:mask")
    )
    gateway = GatewayProcess(tmp_path, release, database_url, valkey_url)
    with pytest.raises(AssertionError, match="redactor_missing"):
        gateway.start()
    assert gateway.process is not None
    assert gateway.process.poll() == 1, "it ended before anybody lost patience"


def test_given_a_model_that_no_route_names_then_its_missing_key_hurts_nobody(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    release = sample_release(upstream.base_url)
    idle = Model(name="idle", kind="chat", provider="local", upstream="x", keys="secret:none")
    release = msgspec.structs.replace(
        release,
        models={**release.models, "idle": idle},
        gateway=msgspec.structs.replace(release.gateway, direct_models=False),
    )
    gateway = GatewayProcess(tmp_path, release, database_url, valkey_url)
    try:
        assert serves(gateway.start())
    finally:
        gateway.stop()


def test_given_the_master_is_killed_then_no_worker_stays(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    with own_gateway(tmp_path, database_url, valkey_url, upstream, workers=2) as gateway:
        eventually(lambda: len(workers(gateway)) == 2)
        orphans = workers(gateway)
        assert gateway.process is not None
        gateway.process.kill()
        gateway.process.wait()
        assert not psutil.wait_procs(orphans, timeout=5)[1]


def test_a_taken_port_is_named(upstream: ModelServer) -> None:
    port = free_port()
    with listen("127.0.0.1", port), pytest.raises(RuntimeStateError) as taken:
        listen("127.0.0.1", port)
    assert taken.value.code == "port_taken"
    assert str(port) in taken.value.message
