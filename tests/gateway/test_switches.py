"""Kills and caps by hand on a real gateway: in force at once, acknowledged, told and lifted."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psycopg
import pytest
from psycopg import sql

from tests.conftest import TEMPLATE, _fresh_database
from tests.gateway.app import GatewayProcess
from tests.gateway.releases import TIMEOUTS, pinned, sample_release
from tests.gateway.test_bad_input import CHAT, USER, eventually
from tests.gateway.test_bad_luck import workers
from tests.gateway.test_limits import serving
from tidegate.base.supervision import Supervisor
from tidegate.release.values import Caps, FixedAnswer, Limit, Release, Route, Surge, Tool
from tidegate.stores.migrate import migrate
from tidegate.stores.postgres import PostgresPlace, ensure_database, postgres_place, postgres_spec
from tidegate.switches import Cap, Change, Kill, list_workers
from tidegate.switches.workers import ACKS, ChangeOutcome, wait_acknowledged
from tidegate.switches.write import Author, kill, lift_cap, lift_kill, set_cap
from tidegate.testing import ModelServer

ME = Author(by="test", reason="a test")
LONG = [{"role": "user", "content": "run " * 300}]
Make = Callable[[psycopg.Connection, Author], Change]


def switch_release(base_url: str, spare_url: str) -> Release:
    release = sample_release(base_url, spare_url)
    tools = {
        name: Tool(name=name, file=pinned("t.json", name), description=name, parameters={})
        for name in ("search", "book")
    }
    routes = [
        Route(
            name="tooled", kind="chat", models=("small",), timeouts=TIMEOUTS,
            tools=("search", "book"),
        ),
        Route(
            name="surging", kind="chat", models=("small",), timeouts=TIMEOUTS,
            caps=Caps(output_tokens=50, surge=Surge(output_tokens=5)),
        ),
        Route(
            name="sorry", kind="chat", models=("small",), timeouts=TIMEOUTS,
            template=FixedAnswer(file=pinned("sorry.md", "Sorry."), text="Sorry."),
        ),
        Route(
            name="kept", kind="chat", models=("small", "spare"), cache_ttl=60, timeouts=TIMEOUTS
        ),
    ]  # fmt: skip
    routes.append(Route(name="narrow", kind="chat", models=("small", "spare"), timeouts=TIMEOUTS))
    once = Limit(
        name="spare-once", unit="requests", amount=1, per="app", calendar="month",
        models=("spare",), routes=("narrow",),
    )  # fmt: skip
    release = msgspec.structs.replace(release, limits={once.name: once})
    return msgspec.structs.replace(
        release, tools=tools, routes={**release.routes, **{one.name: one for one in routes}}
    )


class Switches:
    """A gateway of two workers, and the hand that switches it."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.gateway = gateway

    def change(self, make: Make, within: float = 20) -> ChangeOutcome:
        with psycopg.connect(self.gateway.runtime.database_url, autocommit=True) as connection:
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(ACKS)))
            return wait_acknowledged(connection, make(connection, ME), within)

    @contextmanager
    def killed(self, kind: Any, name: str, tokens: int | None = None) -> Iterator[None]:
        wanted = Kill(kind=kind, name=name, tokens=tokens, reason="a test")
        assert self.change(lambda db, me: kill(db, wanted, me)).complete
        try:
            yield
        finally:
            assert self.change(lambda db, me: lift_kill(db, kind, name, me)).complete

    @contextmanager
    def capped(self, **cap: Any) -> Iterator[None]:
        wanted = Cap(**cap)
        assert self.change(lambda db, me: set_cap(db, wanted, me)).complete
        try:
            yield
        finally:
            assert self.change(lambda db, me: lift_cap(db, wanted.route, me)).complete

    def ask(self, model: str = "plain", path: str = CHAT, **more: Any) -> httpx.Response:
        body = {"model": model, **({"messages": USER} if path == CHAT else {}), **more}
        with self.gateway.client() as client:
            return client.post(path, json=body)

    def refused(self, *arguments: Any, **more: Any) -> tuple[int, str]:
        answer = self.ask(*arguments, **more)
        error = answer.json()["error"]
        assert error["cure"]
        return answer.status_code, error["code"]


@pytest.fixture(scope="module")
def switches(
    tmp_path_factory: pytest.TempPathFactory,
    servers: tuple[ModelServer, ModelServer],
    postgres_server: PostgresPlace,
    valkey_server: Path,
) -> Iterator[Switches]:
    release = switch_release(servers[0].base_url, servers[1].base_url)
    folder = tmp_path_factory.mktemp("switches")
    with (
        contextmanager(_fresh_database)(postgres_server, TEMPLATE) as database_url,
        serving(folder, release, database_url, f"unix://{valkey_server}", workers=2) as process,
    ):
        made = Switches(process)
        eventually(lambda: len(made.change(nothing).acknowledged) == 2, timeout=20)
        yield made


def nothing(connection: psycopg.Connection, author: Author) -> Change:
    """A change that changes nothing."""
    kill(connection, Kill(kind="route", name="nobody's"), author)
    return lift_kill(connection, "route", "nobody's", author)


@pytest.fixture
def app(switches: Switches, upstream: ModelServer, spare: ModelServer) -> Switches:
    """As new: the models have seen nothing, the receipts are those of this test."""
    switches.gateway.forget()
    return switches


def test_a_killed_route_is_refused_and_no_other(app: Switches, upstream: ModelServer) -> None:
    with app.killed("route", "plain"):
        for stream in (False, True):
            assert app.refused(stream=stream) == (503, "route_killed")
        assert app.ask("rescued").status_code == 200
    assert app.ask().status_code == 200
    codes = [(r.code, r.outcome, r.route) for r in app.gateway.receipts(4)]
    assert codes[:2] == [("route_killed", "refused", "plain")] * 2
    assert len(upstream.requests) == 2


def test_a_killed_model_is_not_asked_and_its_fallback_answers(
    app: Switches, upstream: ModelServer
) -> None:
    with app.killed("model", "small"):
        assert app.ask("rescued").headers["x-tidegate-model"] == "spare"
        assert app.refused("plain") == (503, "model_killed")
        assert app.refused("small") == (503, "model_killed")
        assert not upstream.requests
    assert app.ask("rescued").headers["x-tidegate-model"] == "small"
    assert [r.code for r in app.gateway.receipts(4)] == [None, "model_killed", "model_killed", None]


def test_what_stands_in_for_models_stands_in_for_killed_ones(
    app: Switches, upstream: ModelServer
) -> None:
    with app.killed("model", "small"):
        answer = app.ask("sorry")
        assert answer.json()["choices"][0]["message"]["content"] == "Sorry."
        assert answer.headers["x-tidegate-served-by"] == "template"
        assert app.ask("sorry", stream=True).text.endswith("data: [DONE]\n\n")
        assert not upstream.requests


def test_what_a_killed_model_answered_before_is_not_served(app: Switches) -> None:
    def served(answer: httpx.Response) -> tuple[str, str]:
        return answer.headers["x-tidegate-model"], answer.headers["x-tidegate-cache"]

    question = {"messages": [{"role": "user", "content": "kept?"}]}
    app.ask("kept", **question)
    assert served(app.ask("kept", **question)) == ("small", "hit")
    with app.killed("model", "small"):
        assert {served(app.ask("kept", **question)) for _ in range(4)} == {("spare", "bypass")}
    assert served(app.ask("kept", **question)) == ("small", "hit")


def test_a_limit_of_the_model_that_is_left_is_told_as_one(
    app: Switches, upstream: ModelServer, spare: ModelServer
) -> None:
    with app.killed("model", "small"):
        assert app.ask("narrow").headers["x-tidegate-model"] == "spare"
        answer = app.ask("narrow")
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "limit_requests")
        assert answer.headers["retry-after"]
        assert "spare-once" in answer.json()["error"]["message"]
    assert app.ask("narrow").headers["x-tidegate-model"] == "small"
    assert (len(upstream.requests), len(spare.requests)) == (1, 1)


def test_a_killed_tool_is_offered_to_no_model(app: Switches, upstream: ModelServer) -> None:
    mine = [{"type": "function", "function": {"name": "search", "parameters": {}}}]
    search = {"type": "function", "function": {"name": "search"}}
    with app.killed("tool", "search"):
        assert app.ask("tooled").status_code == 200
        assert app.ask(tools=mine, tool_choice="auto", parallel_tool_calls=False).status_code == 200
        assert app.refused(tools=mine, tool_choice="required") == (503, "tool_killed")
        assert app.refused("tooled", tool_choice=search) == (503, "tool_killed")
    first, second = (seen.json for seen in upstream.requests)
    assert [tool["function"]["name"] for tool in first["tools"]] == ["book"]
    assert not second.keys() & {"tools", "tool_choice", "parallel_tool_calls"}
    app.ask("tooled")
    assert len(upstream.requests[-1].json["tools"]) == 2


def test_a_killed_tenant_is_refused_everywhere(app: Switches) -> None:
    with app.killed("tenant", "acme"):
        assert app.refused("plain") == (403, "tenant_killed")
        assert app.refused("embed", "/v1/embeddings", input="x") == (403, "tenant_killed")
    with app.killed("tenant", "other"):
        assert app.ask().status_code == 200


def test_long_prompts_are_refused_of_one_route_or_of_all(app: Switches) -> None:
    with app.killed("prompts", "plain", 100):
        assert app.refused(messages=LONG) == (403, "prompt_killed")
        assert app.ask().status_code == 200
        assert app.ask("rescued", messages=LONG).status_code == 200
        with app.killed("prompts", "", 3):
            assert app.refused("rescued", messages=LONG) == (403, "prompt_killed")
            for input in ("run " * 9, ["run"] * 9, list(range(9)), [[1, 2], [3, 4]]):
                found = app.refused("embed", "/v1/embeddings", input=input)
                assert found == (403, "prompt_killed")
            assert app.ask("embed", "/v1/embeddings", input="run").status_code == 200
    assert app.ask(messages=LONG).status_code == 200


def test_a_cap_by_hand_holds_the_answer_and_the_receipt_says_so(
    app: Switches, upstream: ModelServer
) -> None:
    with app.capped(route="plain", output_tokens=4):
        capped = app.ask(max_tokens=30)
        assert capped.headers["x-tidegate-capped"] == "switch"
        modest = app.ask(max_completion_tokens=2)
        assert "x-tidegate-capped" not in modest.headers
        assert "x-tidegate-capped" not in app.ask("rescued").headers
        with app.capped(output_tokens=3, prompt_tokens=50):  # of all: the tightest holds
            assert app.ask().json()["usage"]["completion_tokens"] == 3
            assert app.refused(messages=LONG) == (400, "prompt_too_long")
    assert "x-tidegate-capped" not in app.ask(max_tokens=30).headers
    asked = [seen.json for seen in upstream.requests]
    assert [one.get("max_tokens") for one in asked] == [4, None, None, 3, 30]
    assert asked[1]["max_completion_tokens"] == 2
    receipts = app.gateway.receipts(6)
    assert [r.capped for r in receipts] == ["switch", None, None, "switch", None, None]


def test_the_cap_under_load_is_switched_by_hand(app: Switches, upstream: ModelServer) -> None:
    assert "x-tidegate-capped" not in app.ask("surging").headers
    with app.capped(route="surging", surge="on"):
        assert app.ask("surging").headers["x-tidegate-capped"] == "surge"
        assert upstream.requests[-1].json["max_tokens"] == 5
        with app.capped(surge="off"):  # a route's own word goes before that for all
            assert app.ask("surging").headers["x-tidegate-capped"] == "surge"
    with app.capped(surge="on"):
        assert app.ask("surging").headers["x-tidegate-capped"] == "surge"
        assert "x-tidegate-capped" not in app.ask("plain").headers


def test_a_worker_that_stands_still_is_named_and_catches_up(app: Switches) -> None:
    processes = workers(app.gateway)
    frozen = processes[0]
    frozen.suspend()
    try:
        outcome = app.change(nothing, within=1.5)
        assert not outcome.complete
        assert [one.pid for one in outcome.missing] == [frozen.pid]
        assert [done.worker.pid for done in outcome.acknowledged] == [processes[1].pid]
    finally:
        frozen.resume()
    assert app.change(nothing).complete


def test_two_gateways_of_one_app_both_acknowledge_and_the_one_that_does_not_is_named(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    release = switch_release(upstream.base_url, upstream.base_url)
    with (
        serving(tmp_path / "a", release, database_url, valkey_url) as here,
        serving(tmp_path / "b", release, database_url, valkey_url) as there,
    ):
        one, other = Switches(here), Switches(there)
        eventually(lambda: len(one.change(nothing).acknowledged) == 2, timeout=20)
        with one.killed("route", "plain"):
            assert one.refused() == other.refused() == (503, "route_killed")
        (frozen,) = workers(there)
        frozen.suspend()
        try:
            outcome = one.change(nothing, within=1.5)
        finally:
            frozen.resume()
        assert [lost.pid for lost in outcome.missing] == [frozen.pid]
        assert [done.worker.pid for done in outcome.acknowledged] == [workers(here)[0].pid]


def test_a_worker_that_is_replaced_starts_with_the_switches_in_force(app: Switches) -> None:
    with app.killed("route", "plain"):
        gone = {process.pid for process in workers(app.gateway)}
        for pid in gone:
            os.kill(pid, signal.SIGKILL)

        def both_new() -> bool:
            with psycopg.connect(app.gateway.runtime.database_url, autocommit=True) as connection:
                found = list_workers(connection)
            fresh = {one.pid for one in found if one.version is not None} - gone
            return len(fresh) == 2 and len(found) == 2

        eventually(both_new, timeout=30)
        for _ in range(20):
            assert app.refused() == (503, "route_killed")
        assert app.change(nothing).complete


def test_a_kill_stays_while_postgresql_is_away_and_over_a_start(
    app_folder: Path, valkey_url: str, upstream: ModelServer
) -> None:
    """given a kill in force; when PostgreSQL goes; then it stays, also in a worker that starts."""
    import asyncio

    async def scenario() -> None:
        async with Supervisor() as supervisor:
            server = supervisor.add(postgres_spec(app_folder))
            await server.ready()
            url = ensure_database(postgres_place(app_folder))
            migrate(url)
            await asyncio.to_thread(with_postgres, url)
            await server.stop()
            await asyncio.to_thread(without_postgres)

    release = switch_release(upstream.base_url, upstream.base_url)
    running: list[Switches] = []
    (app_folder / "app").mkdir(exist_ok=True)

    def with_postgres(url: str) -> None:
        process = GatewayProcess(app_folder / "app", release, url, valkey_url, workers=1)
        app = Switches(process.start())
        running.append(app)
        wanted = Kill(kind="route", name="plain")
        eventually(lambda: app.change(lambda db, me: kill(db, wanted, me)).acknowledged, timeout=20)
        assert app.refused() == (503, "route_killed")

    def without_postgres() -> None:
        app = running[0]
        assert app.refused() == (503, "route_killed")
        assert app.ask("rescued").status_code == 200
        before = {process.pid for process in workers(app.gateway)}
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: answers(app), timeout=30)
        assert {process.pid for process in workers(app.gateway)} - before
        assert app.refused() == (503, "route_killed")

    def answers(app: Switches) -> bool:
        try:
            return app.ask("rescued").status_code == 200
        except httpx.HTTPError:
            return False

    try:
        asyncio.run(scenario())
    finally:
        for app in running:
            app.gateway.stop()


def test_the_audit_says_who_what_and_why(app: Switches) -> None:
    with (
        app.killed("route", "plain"),
        psycopg.connect(app.gateway.runtime.database_url, autocommit=True) as connection,
    ):
        row = connection.execute(
            "SELECT by, what, new, reason FROM switch_changes ORDER BY version DESC LIMIT 1"
        ).fetchone()
        assert row is not None
        assert (row[0], row[1], row[3]) == ("test", "kill route plain", "a test")
        assert json.loads(json.dumps(row[2]))["name"] == "plain"
        with pytest.raises(psycopg.errors.RaiseException):
            connection.execute("DELETE FROM switch_changes")
