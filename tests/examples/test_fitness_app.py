"""The example app against a real PostgreSQL and a simulated model server in the gateway's place."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.testclient import TestClient

from examples.fitness.app import make_app
from examples.fitness.settings import Settings, read_settings
from tests.ports import free_port
from tidegate.base.errors import RuntimeStateError
from tidegate.testing import Cut, ErrorEvent, ModelServer, Script, Step

NOBODY = "http://127.0.0.1:9"  # no operator's door: spans are let go
SAYS = "Walk for ten minutes. Then rest."


def say(request: dict[str, Any]) -> str:
    return json.dumps({"tool": "calories"}) if request["model"] == "coach-tool" else SAYS


class Gateway(ModelServer):
    """Takes a request without messages when it brings inputs, as a templated route does."""

    def _model_answer(self, seen: Any, path: str, dialect: Any) -> Any:
        asked = json.loads(seen.body)
        if asked.get("messages") == [] and asked["tidegate"]["inputs"]:
            asked["messages"] = [{"role": "user", "content": "the rendered prompt"}]
            seen.body = json.dumps(asked).encode()
        return super()._model_answer(seen, path, dialect)


@pytest.fixture
def gateway() -> Iterator[ModelServer]:
    with Gateway(answer=say) as server:
        yield server


@pytest.fixture
def app(gateway: ModelServer, empty_database_url: str) -> Iterator[TestClient]:
    settings = Settings(gateway.url, empty_database_url, "key", NOBODY)
    with TestClient(make_app(settings)) as client:
        yield client


@contextmanager
def served(app: Starlette) -> Iterator[str]:
    """``app`` behind a real socket; its URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        end = time.monotonic() + 20
        while not server.started and thread.is_alive() and time.monotonic() < end:
            time.sleep(0.02)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


def events(response: httpx.Response) -> list[dict[str, str]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in response.text.splitlines()]


def said(found: list[dict[str, str]]) -> str:
    return "".join(event["value"] for event in found if event["kind"] == "text")


def test_the_page_says_what_it_is_not(app: TestClient) -> None:
    page = app.get("/").text
    assert "Not medical advice" in page
    for link in ("/static/coach.css", "/static/coach.js"):
        assert link in page
        assert app.get(link).status_code == 200


def test_get_plan(app: TestClient, gateway: ModelServer, empty_database_url: str) -> None:
    wish = {"goal": " lose weight ", "level": "beginner", "minutes": 20}
    found = events(app.post("/plan", json=wish))

    assert [found[0]["kind"], found[-1]["kind"]] == ["html", "done"]
    assert found[0]["value"].count("<li>") == 3
    assert "athlete" not in found[0]["value"]
    assert len([e for e in found if e["kind"] == "text"]) > 1  # piece by piece
    assert said(found) == SAYS

    asked = [json.loads(seen.body) for seen in gateway.requests]
    assert [a["model"] for a in asked] == ["embed", "embed", "recommend"]  # the first one seeds
    inputs = asked[-1]["tidegate"]["inputs"]
    assert {k: inputs[k] for k in ("goal", "level", "minutes")} == {
        **wish,
        "goal": "lose weight",
    }
    assert len(inputs["workouts"]) == 3
    assert asked[-1]["stream"] is True
    with psycopg.connect(empty_database_url) as connection:
        kept = connection.execute("SELECT journey, asked, said FROM fitness.answers").fetchall()
    assert kept == [("get-plan", {**wish, "goal": "lose weight"}, SAYS)]


def test_ask_coach(app: TestClient, gateway: ModelServer) -> None:
    found = events(app.post("/ask", json={"question": "How many kcal is 30 minutes of running?"}))
    assert "about 360 kcal" in found[0]["value"]
    assert said(found) == SAYS
    assert found[-1]["kind"] == "done"
    asked = [json.loads(seen.body) for seen in gateway.requests]
    assert [a["model"] for a in asked[1:]] == ["embed", "coach-tool", "coach"]
    assert "360 kcal" in asked[-1]["tidegate"]["inputs"]["fact"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/plan", {"goal": "", "level": "beginner", "minutes": 20}),
        ("/plan", {"goal": "x" * 121, "level": "beginner", "minutes": 20}),
        ("/plan", {"goal": "x", "level": "god", "minutes": 20}),
        ("/plan", {"goal": "x", "level": "regular", "minutes": 1000}),
        ("/plan", {"goal": ["x"], "level": ["regular"], "minutes": "20"}),
        ("/ask", {"question": None}),
        ("/ask", ["question"]),
        ("/ask", "{"),
    ],
)
def test_bad_forms_are_refused(app: TestClient, path: str, body: object) -> None:
    answer = app.post(path, content=body if isinstance(body, str) else json.dumps(body))
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("expected")


@pytest.mark.parametrize("fault", [Cut(after=2), ErrorEvent(after=2)], ids=["cut", "error-event"])
def test_an_answer_that_breaks_never_looks_finished(
    app: TestClient, gateway: ModelServer, fault: Any
) -> None:
    gateway.script = Script((Step(fault=fault, model="recommend"),))
    found = events(app.post("/plan", json={"goal": "x", "level": "regular", "minutes": 20}))
    assert found[-1]["kind"] == "error"
    assert "done" not in [event["kind"] for event in found]


def test_a_user_who_leaves_ends_the_call_of_the_model(empty_database_url: str) -> None:
    with Gateway(answer="word " * 400, inter_token=0.05) as gateway:
        app = make_app(Settings(gateway.url, empty_database_url, "key", NOBODY))
        with served(app) as url:
            wish = {"goal": "x", "level": "regular", "minutes": 20}
            with httpx.stream("POST", url + "/plan", json=wish) as answer:
                kinds = (json.loads(line)["kind"] for line in answer.iter_lines())
                assert "text" in kinds  # the first words are here; now the user leaves
            gateway.wait_until(lambda server: server.statistics().client_closed == 1)


def test_it_survives_a_restart_of_the_database(app: TestClient, empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    question = {"question": "How many kcal is 30 minutes of running?"}
    assert events(app.post("/ask", json=question))[-1]["kind"] == "done"


def test_without_its_gateway_it_says_sorry(app: TestClient, gateway: ModelServer) -> None:
    gateway.__exit__(None, None, None)
    found = events(app.post("/ask", json={"question": "?"}))
    assert [event["kind"] for event in found] == ["error"]
    assert "try again" in found[0]["value"]
    gateway.__enter__()


def test_what_users_write_is_shown_as_text(app: TestClient) -> None:
    found = events(app.post("/ask", json={"question": "<script>alert(1)</script> running 5 min?"}))
    assert "<script>" not in found[0]["value"]


def test_seeding_happens_once(gateway: ModelServer, empty_database_url: str) -> None:
    for _ in range(2):
        with TestClient(make_app(Settings(gateway.url, empty_database_url, "key", NOBODY))):
            pass
    assert len(gateway.requests) == 1
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT count(*) FROM fitness.workouts").fetchone() == (44,)


def test_settings_come_from_variables_or_from_what_runs(tmp_path: Path) -> None:
    env = {"TIDEGATE_GATEWAY_URL": "http://g", "DATABASE_URL": "d", "TIDEGATE_KEY": "k"}
    assert read_settings(env, tmp_path) == Settings("http://g", "d", "k", str(tmp_path))
    assert "k" not in repr(read_settings({**env, "TIDEGATE_KEY": "k-secret"}, tmp_path)).split("'")
    with pytest.raises(RuntimeStateError, match="nothing runs"):
        read_settings({}, tmp_path)


def test_its_own_process(gateway: ModelServer, empty_database_url: str) -> None:
    port = free_port()
    env = {
        **os.environ,
        "TIDEGATE_GATEWAY_URL": gateway.url,
        "DATABASE_URL": empty_database_url,
        "TIDEGATE_KEY": "key",
        "TIDEGATE_OPERATOR_URL": NOBODY,
    }
    command = [sys.executable, "-m", "examples.fitness", "--port", str(port)]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        url, end = f"http://127.0.0.1:{port}", time.monotonic() + 30
        while True:
            try:
                httpx.get(url + "/health").raise_for_status()
                break
            except httpx.TransportError:
                assert time.monotonic() < end
                assert process.poll() is None, process.communicate()[0].decode()
                time.sleep(0.1)
        with httpx.stream(
            "POST", url + "/ask", json={"question": "yoga 20 minutes kcal"}
        ) as answer:
            kinds = [json.loads(line)["kind"] for line in answer.iter_lines()]
        assert kinds[0] == "html"
        assert kinds[-1] == "done"
    finally:
        process.terminate()
        output = process.communicate(timeout=15)[0].decode()
    assert "fitness coach on http://127.0.0.1" in output
    assert "Traceback" not in output


def test_without_a_gateway_it_says_what_to_do(tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("TIDEGATE_")}
    code = (
        "import sys; import examples.fitness.__main__ as m, examples.fitness.settings as s;"
        f"from pathlib import Path; s.read_settings.__defaults__ = ({{}}, Path({str(tmp_path)!r}));"
        "sys.argv = ['x']; sys.exit(m.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "tidegate up" in done.stderr
