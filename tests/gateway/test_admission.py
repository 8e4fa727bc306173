"""Real gateways with more to do than they can: queues, surge caps, drains, too many connections."""

from __future__ import annotations

import collections
import concurrent.futures
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psycopg
import pytest

from tests.gateway.app import GatewayProcess
from tests.gateway.releases import sample_release
from tests.gateway.test_bad_input import CHAT, USER, eventually
from tests.gateway.test_bad_luck import workers
from tests.gateway.test_gauges import told
from tidegate.release.values import Caps, QueueSettings, Release, Route, Surge, Timeouts
from tidegate.switches import create_key
from tidegate.testing import Hold, ModelServer, Script, Step, Words

LONG = Timeouts(connect=1, first_token=8, idle=8, total=10)


def release_of(upstream: ModelServer, **gateway: Any) -> Release:
    release = sample_release(upstream.base_url)
    surge = Surge(output_tokens=5, above=0.6)
    routes = [
        Route(
            name="queued", kind="chat", models=("small",), timeouts=LONG,
            queue=QueueSettings(concurrent=3, waiting=40, wait=8),
        ),
        Route(
            name="narrow", kind="chat", models=("small",), timeouts=LONG,
            queue=QueueSettings(concurrent=1, waiting=1, wait=6),
        ),
        Route(
            name="hasty", kind="chat", models=("small",), timeouts=LONG,
            queue=QueueSettings(concurrent=1, waiting=5, wait=2),
        ),
        Route(
            name="cached", kind="chat", models=("small",), timeouts=LONG, cache_ttl=60,
            queue=QueueSettings(concurrent=1, waiting=0),
        ),
        Route(
            name="surging", kind="chat", models=("small",), timeouts=LONG, cache_ttl=60,
            caps=Caps(output_tokens=50, surge=surge),
            queue=QueueSettings(concurrent=2, waiting=5),
        ),
    ]  # fmt: skip
    return msgspec.structs.replace(
        release,
        routes={**release.routes, **{route.name: route for route in routes}},
        gateway=msgspec.structs.replace(release.gateway, **gateway),
    )


@contextmanager
def gateway_of(
    folder: Path, database_url: str, valkey_url: str, release: Release, **more: Any
) -> Iterator[GatewayProcess]:
    process = GatewayProcess(folder, release, database_url, valkey_url, **more)
    try:
        yield process.start()
        if process.process is not None and process.process.poll() is None:
            eventually(lambda: at_rest(process))
    finally:
        process.stop()


def at_rest(gateway: GatewayProcess) -> bool:
    """Every gauge is at zero, in the worker that answers."""
    with gateway.client() as client:
        state = client.get("/ready").json()
    return all(not q["in_use"] and not q["waiting"] for q in state["queues"].values())


def ask(gateway: GatewayProcess, route: str, **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    with gateway.client() as client:
        return client.post(CHAT, json={"model": route, "messages": USER, **more}, headers=headers)


def code(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"])


@contextmanager
def busy(gateway: GatewayProcess, upstream: ModelServer, route: str, count: int = 1) -> Any:
    """``count`` requests of ``route`` are at the model until this is left, or the model is
    released; yields their futures."""
    upstream.script = Script.of(Step(fault=Hold(), first=count))
    upstream.reset()
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        running = [pool.submit(ask, gateway, route, user=f"{n}", seed=n) for n in range(count)]
        try:
            upstream.wait_until(lambda server: len(server.requests) == count)
            yield running
        finally:
            upstream.release()


def test_workers_together_never_exceed_the_places_of_a_route(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    upstream.script = Script.of("slow_first_token=60ms")
    most = 0
    stop = threading.Event()

    def watch() -> None:
        nonlocal most
        while not stop.is_set():
            most = max(most, upstream.statistics().in_flight)
            time.sleep(0.002)

    release = release_of(upstream)
    with gateway_of(tmp_path, database_url, valkey_url, release, workers=3) as gateway:
        eventually(lambda: len(workers(gateway)) == 3)
        watcher = threading.Thread(target=watch)
        watcher.start()
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            streams = list(pool.map(lambda n: ask(gateway, "queued", stream=n % 2 == 0), range(48)))
        stop.set()
        watcher.join()
        assert {answer.status_code for answer in streams} == {200}
        assert most == 3, "all places are used, and no more"
        receipts = gateway.receipts(48)
        assert len({receipt.worker for receipt in receipts}) > 1
        waits = [receipt.queued for receipt in receipts if receipt.queued is not None]
        assert len(waits) == 48
        assert max(waits) > 60
        for receipt in receipts:
            assert sum(receipt.stages.values()) < receipt.total + 5
            assert abs(receipt.stages["queue"] - (receipt.queued or 0)) < 5, "a stage of its own"
        assert any(float(answer.headers["x-tidegate-queued-ms"]) > 60 for answer in streams)


def test_a_worker_that_is_killed_gives_its_places_back(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    upstream.script = Script.of("first=3 hang")
    release = release_of(upstream)
    with gateway_of(tmp_path, database_url, valkey_url, release) as gateway:
        lost: list[int] = []

        def hold() -> None:
            try:
                lost.append(ask(gateway, "queued").status_code)
            except httpx.HTTPError:
                lost.append(0)

        threads = [threading.Thread(target=hold) for _ in range(3)]
        for thread in threads:
            thread.start()
        upstream.wait_until(lambda server: len(server.requests) == 3)
        workers(gateway)[0].send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join()
        assert lost == [0, 0, 0]
        answers = [ask(gateway, "queued") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200] * 4


def test_hits_need_no_place_and_a_full_queue_is_told(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    release = release_of(upstream)
    with gateway_of(tmp_path, database_url, valkey_url, release) as gateway:
        assert ask(gateway, "cached").status_code == 200
        with busy(gateway, upstream, "cached") as running:
            assert ask(gateway, "cached").headers["x-tidegate-cache"] == "hit"
            refused = ask(gateway, "cached", seed=99)
            assert (refused.status_code, code(refused)) == (503, "queue_full")
            assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert running[0].result().status_code == 200
        refusal = next(r for r in gateway.receipts(4) if r.code == "queue_full")
        assert (refusal.outcome, refusal.attempts, refusal.cost) == ("refused", (), 0)


def test_a_higher_priority_displaces_a_lower_one_and_no_request_raises_its_own(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    release = release_of(upstream)
    with psycopg.connect(database_url) as connection:
        high = create_key(connection, name="vip", priority="high").token
        low = create_key(connection, name="batch", priority="low").token
    with gateway_of(tmp_path, database_url, valkey_url, release) as gateway:
        vip = {"authorization": f"Bearer {high}"}
        batch = {"authorization": f"Bearer {low}"}
        with concurrent.futures.ThreadPoolExecutor(3) as pool, busy(gateway, upstream, "narrow"):
            waiting = pool.submit(ask, gateway, "narrow")
            eventually(lambda: queue_of(gateway, "narrow")["waiting"] == 1)
            for headers in (batch, {**batch, "x-tidegate-priority": "high"}):
                refused = ask(gateway, "narrow", headers=headers)
                assert code(refused) == "queue_full", "it may lower its priority, not raise it"
            lowered = ask(gateway, "narrow", headers=vip, tidegate={"priority": "normal"})
            assert code(lowered) == "queue_full"
            served = pool.submit(ask, gateway, "narrow", headers=vip)
            displaced = waiting.result()
            assert (displaced.status_code, code(displaced)) == (503, "queue_full")
            upstream.release()
            assert served.result().status_code == 200
        bad = ask(gateway, "narrow", headers={"x-tidegate-priority": "urgent"})
        assert (bad.status_code, code(bad)) == (400, "priority_unknown")
        wrong = ask(gateway, "narrow", tidegate={"priority": "urgent"})
        assert (wrong.status_code, code(wrong)) == (400, "request_invalid")


def queue_of(gateway: GatewayProcess, route: str) -> dict[str, int]:
    with gateway.client() as client:
        found: dict[str, int] = client.get("/ready").json()["queues"][route]
    return found


def test_a_wait_is_bounded_and_then_predicted(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    release = release_of(upstream)
    with gateway_of(tmp_path, database_url, valkey_url, release) as gateway:
        with busy(gateway, upstream, "hasty") as running:
            late = ask(gateway, "hasty")
            assert (late.status_code, code(late)) == (503, "overloaded")
            assert "no place within" in late.json()["error"]["message"]
        assert running[0].result().status_code == 200
        with busy(gateway, upstream, "hasty"):
            late = ask(gateway, "hasty")
            assert code(late) == "overloaded"
            assert "would be about" in late.json()["error"]["message"]
            assert int(late.headers["retry-after"]) >= 1
        waited = [r.queued for r in gateway.receipts(4) if r.code == "overloaded"]
        assert len(waited) == 2
        assert min(waited) < 1500 < max(waited), "the second did not wait to find out"


def test_a_client_that_leaves_the_queue_is_forgotten(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    release = release_of(upstream)
    with gateway_of(tmp_path, database_url, valkey_url, release) as gateway:
        with busy(gateway, upstream, "narrow"):
            with gateway.client() as client, pytest.raises(httpx.ReadTimeout):
                client.post(CHAT, json={"model": "narrow", "messages": USER}, timeout=0.2)
            eventually(lambda: queue_of(gateway, "narrow")["waiting"] == 0)
        (gone,) = [r for r in gateway.receipts(2) if r.outcome == "client_gone"]
        assert gone.attempts == ()
        assert gone.queued is not None


def test_answers_are_capped_while_the_load_is_high_and_the_cache_knows_no_difference(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    release = release_of(upstream)
    with gateway_of(tmp_path, database_url, valkey_url, release) as gateway:
        calm = ask(gateway, "surging", seed=100)
        assert "x-tidegate-capped" not in calm.headers
        assert upstream.requests[-1].json["max_tokens"] == 50
        with busy(gateway, upstream, "surging") as running:
            capped = ask(gateway, "surging", seed=101, max_tokens=30)
            assert capped.headers["x-tidegate-capped"] == "surge"
            assert upstream.requests[-1].json["max_tokens"] == 5
            modest = ask(gateway, "surging", seed=102, max_tokens=3)
            assert "x-tidegate-capped" not in modest.headers
            assert upstream.requests[-1].json["max_tokens"] == 3
            assert ask(gateway, "surging", seed=100).headers["x-tidegate-cache"] == "hit"
        running[0].result()
        by_cap = collections.Counter(receipt.capped for receipt in gateway.receipts(5))
        assert by_cap["surge"] == 1


# -- single-flight ------------------------------------------------------------------------------


def test_fifty_identical_calls_over_two_workers_are_asked_once(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    upstream.script = Script.of("slow_first_token=1s")
    release = release_of(upstream)
    with gateway_of(tmp_path, database_url, valkey_url, release, workers=2) as gateway:
        eventually(lambda: len(workers(gateway)) == 2)
        with concurrent.futures.ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(lambda _: ask(gateway, "cached"), range(50)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert len(upstream.requests) == 1


def test_when_the_leader_fails_one_follower_leads_next(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    release = release_of(upstream)
    with gateway_of(tmp_path, database_url, valkey_url, release, workers=2) as gateway:
        eventually(lambda: len(workers(gateway)) == 2)
        upstream.script = Script.of("first=1 hang")
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: ask(gateway, "plan", **goal()), range(20)))
        statuses = collections.Counter(answer.status_code for answer in answers)
        assert statuses == {200: 19, 504: 1}
        assert len(upstream.requests) == 2, "one leader at a time"


def goal() -> dict[str, Any]:
    return {"stream": True, "messages": [], "tidegate": {"inputs": {"goal": "together"}}}


# -- drains -------------------------------------------------------------------------------------


def test_given_load_when_one_worker_is_stopped_then_no_request_fails(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    release = release_of(upstream)
    with gateway_of(tmp_path, database_url, valkey_url, release, workers=2) as gateway:
        eventually(lambda: len(workers(gateway)) == 2)
        stop = threading.Event()
        failures: list[str] = []
        served: list[int] = []

        def load(number: int) -> None:
            body = {"model": "queued", "messages": USER, "stream": number % 2 == 0}
            with gateway.client() as client:
                while not stop.is_set():
                    try:
                        answer = client.post(CHAT, json=body)
                    except httpx.HTTPError as error:
                        failures.append(repr(error))
                        continue
                    served.append(answer.status_code)
                    if answer.status_code != 200 or (
                        number % 2 == 0 and "[DONE]" not in answer.text
                    ):
                        failures.append(answer.text)

        threads = [threading.Thread(target=load, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            time.sleep(0.5)
            doomed = workers(gateway)[0]
            doomed.send_signal(signal.SIGTERM)
            eventually(lambda: not doomed.is_running(), 15)  # noqa: B023
            eventually(lambda: len(workers(gateway)) == 2, 15)
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(served) > 50
        assert len(gateway.receipts(len(served))) == len(served)


def test_given_sigterm_then_who_waits_is_still_served(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    release = release_of(upstream)
    with gateway_of(tmp_path, database_url, valkey_url, release) as gateway:
        with (
            concurrent.futures.ThreadPoolExecutor(1) as pool,
            busy(gateway, upstream, "narrow") as running,
        ):
            waiting = pool.submit(ask, gateway, "narrow", stream=True)
            eventually(lambda: queue_of(gateway, "narrow")["waiting"] == 1)
            threading.Timer(0.5, upstream.release).start()  # while the gateway drains
            gateway.stop()
            assert running[0].result().status_code == 200
            late = waiting.result()
        assert "[DONE]" in late.text
        assert late.headers["connection"] == "close"
        assert gateway.process is not None
        assert gateway.process.returncode == 0


def test_given_the_drain_limit_then_what_runs_is_cut_and_told(
    tmp_path: Path, database_url: str, valkey_url: str
) -> None:
    with (
        ModelServer(answer=Words(400), inter_token=0.05) as endless,
        gateway_of(tmp_path, database_url, valkey_url, release_of(endless), drain=1.5) as gateway,
        concurrent.futures.ThreadPoolExecutor(3) as pool,
    ):
        endless.script = Script.of("index=2 hang")
        stream = pool.submit(ask, gateway, "narrow", stream=True)
        endless.wait_until(lambda server: len(server.requests) == 1)
        waiting = pool.submit(ask, gateway, "narrow")
        eventually(lambda: queue_of(gateway, "narrow")["waiting"] == 1)
        whole = pool.submit(ask, gateway, "plain")
        endless.wait_until(lambda server: len(server.requests) == 2)
        time.sleep(0.2)
        gateway.stop()
        for answer in (waiting.result(), whole.result()):
            assert (answer.status_code, code(answer)) == (503, "gateway_draining")
            assert answer.headers["retry-after"] == "1"
        told = stream.result()
        assert told.status_code == 200
        assert "[DONE]" not in told.text
        last = [line for line in told.text.splitlines() if line][-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "gateway_draining"
        assert gateway.process is not None
        assert gateway.process.returncode == 0
        receipts = gateway.receipts(3)
        assert [r.code for r in receipts] == ["gateway_draining"] * 3
        assert not {r.outcome for r in receipts} - {"failed", "refused"}
        said = "".join(p.read_text() for p in (tmp_path / ".tidegate/log").glob("gateway-*.log"))
        assert all(f"request {r.id} of key" in said for r in receipts), "the log says who was cut"
        cut = next(r for r in receipts if r.stream)
        assert (cut.status, cut.outcome) == (200, "failed")
        assert cut.usage is not None
        assert cut.usage.estimated, "what came until then is settled"
        endless.wait_until(lambda server: server.statistics().in_flight == 0)


# -- gauges -------------------------------------------------------------------------------------


def test_what_is_held_shows_in_the_gauges_and_returns_to_zero(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    held = ("queue_places", "queue_waiting", "idempotency_held", "connections_leaving")
    release = release_of(upstream, max_connections=4)
    with gateway_of(tmp_path, database_url, valkey_url, release) as gateway:
        upstream.script = Script.of("index=0 slow_first_token=4s")
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            running = [
                pool.submit(ask, gateway, "narrow", headers={"idempotency-key": f"{n}"})
                for n in range(2)
            ]
            busy = told(gateway, lambda one: one.gauges["queue_waiting"] == 1)
            assert (busy.gauges["queue_places"], busy.gauges["idempotency_held"]) == (1, 2)
            extra = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(3)]
            told(gateway, lambda one: one.gauges["connections_leaving"] == 1)
            for one in extra:
                one.close()
            assert [answer.result().status_code for answer in running] == [200, 200]
        told(gateway, lambda one: one.at > busy.at and not any(one.gauges[name] for name in held))


# -- connections --------------------------------------------------------------------------------


def test_connections_are_bounded_and_one_too_many_is_told(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    release = release_of(upstream, max_connections=5)
    with gateway_of(tmp_path, database_url, valkey_url, release) as gateway:
        held = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(5)]
        time.sleep(0.1)
        refused = ask(gateway, "plain")
        assert (refused.status_code, code(refused)) == (503, "connections_too_many")
        assert refused.headers["connection"] == "close"
        assert refused.headers["retry-after"] == "1"
        for one in held:
            one.close()
        eventually(lambda: ask(gateway, "plain").status_code == 200)
