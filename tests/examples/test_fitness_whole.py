"""The main job, whole: the example app on its real models, gateway, ledger and profile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from examples.fitness.app import make_app
from examples.fitness.settings import FOLDER, read_settings
from tests.examples.test_fitness_app import events, said

# The first run on a machine fetches the models.
pytestmark = pytest.mark.timeout(600)
TIDEGATE = str(Path(sys.executable).with_name("tidegate"))
PLAN = {"goal": "get rid of a stiff neck", "level": "beginner", "minutes": 15}
GATEWAY_STAGES = {"admit", "render", "cache", "route", "call", "record"}


@pytest.fixture(scope="module")
def running() -> Iterator[Path]:
    """``tidegate up`` on a copy of the example, on free ports."""
    folder = Path(tempfile.mkdtemp(prefix="tg-fit-"))
    folder.chmod(0o755)
    ignored = shutil.ignore_patterns(".tidegate", "__pycache__")
    copy = Path(shutil.copytree(FOLDER, folder / "fitness", ignore=ignored))
    command = [TIDEGATE, "up", str(copy), "--port", "0", "--operator-port", "0", "--workers", "1"]
    up = subprocess.Popen(
        [*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert up.stdout is not None
        ready = up.stdout.readline()
        assert ready.startswith("{"), up.communicate(timeout=20)[1]
        yield copy
    finally:
        up.send_signal(signal.SIGINT)
        try:
            up.communicate(timeout=30)
        finally:
            up.kill()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def answers(running: Path) -> dict[str, list[dict[str, str]]]:
    """What users got: one plan twice, one question."""
    with TestClient(make_app(read_settings({}, running))) as app:
        first, again = (events(app.post("/plan", json=PLAN)) for _ in range(2))
        question = {"question": "How many calories do I burn running 30 minutes?"}
        return {"plan": first, "again": again, "ask": events(app.post("/ask", json=question))}


def shown(app: Path, *words: str) -> Any:
    done = subprocess.run(
        [TIDEGATE, words[0], str(app), *words[1:], "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    if words[0] == "receipts":
        return [json.loads(line) for line in done.stdout.splitlines()]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def profile(running: Path, answers: object) -> dict[str, dict[str, Any]]:
    """The journeys of the profile by name, once all three are in the ledger."""
    end = time.monotonic() + 20
    while True:
        journeys = {one["name"]: one for one in shown(running, "profile").get("journeys", [])}
        if sum(journey["count"] for journey in journeys.values()) >= 3:
            return journeys
        assert time.monotonic() < end, journeys
        time.sleep(0.5)


def stages(journey: dict[str, Any], within: str | None) -> set[str]:
    return {s["stage"] for s in journey["stages"] if s["within"] == within} - {"other"}


def test_users_get_answers_from_the_real_models(answers: dict[str, list[dict[str, str]]]) -> None:
    for found in answers.values():
        assert found[-1]["kind"] == "done"
        assert len(said(found)) > 5
    # The nearest of 44 workouts by meaning, not by words alone.
    assert "Neck and shoulder reset" in answers["plan"][0]["value"].split("</b>")[0]


def test_the_same_wish_is_answered_from_the_cache(
    running: Path, answers: dict[str, list[dict[str, str]]], profile: object
) -> None:
    assert said(answers["plan"]) == said(answers["again"])
    receipts = shown(running, "receipts", "--route", "recommend")
    assert [receipt["cache"] for receipt in receipts] == ["hit", "miss"]
    assert receipts[0]["cost"] == 0


def test_each_request_has_one_receipt_with_its_journey(
    running: Path, profile: dict[str, Any]
) -> None:
    found = shown(running, "receipts", "--limit", "100")
    asked = sorted((receipt["route"], receipt.get("journey", "")) for receipt in found)
    assert asked == sorted(
        [("embed", "")]  # the collection, at the start of the app
        + [("embed", "get-plan"), ("recommend", "get-plan")] * 2
        + [("embed", "ask-coach"), ("coach-tool", "ask-coach"), ("coach", "ask-coach")]
    )
    assert all(receipt["status"] == 200 for receipt in found)


def test_app_and_gateway_make_one_picture(profile: dict[str, dict[str, Any]]) -> None:
    plan, ask = profile["get-plan"], profile["ask-coach"]
    assert (plan["count"], ask["count"]) == (2, 1)
    assert plan["errors"] == ask["errors"] == 0
    app_stages = {"prompt", "retrieval", "model", "database", "rendering"}
    assert stages(plan, None) == app_stages
    assert stages(ask, None) == app_stages | {"tools"}
    for journey in (plan, ask):
        assert stages(journey, "retrieval") == GATEWAY_STAGES
    assert stages(plan, "model") == GATEWAY_STAGES
    assert stages(ask, "model") == GATEWAY_STAGES | {"guard"}
    assert plan["cache_rate"] == 0.5
    assert plan["completion_tokens"] > 5
    assert 0 < plan["first_token"]["p95"] <= plan["times"]["p95"]
    assert sum(s["share"] for s in plan["stages"] if s["within"] is None) == pytest.approx(1, 0.01)
