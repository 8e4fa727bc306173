"""The script that make demo runs: its users, what it makes of their answers, its ports."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.fitness.settings import FOLDER
from examples.fitness.workouts import LEVELS

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "demo.py"


@pytest.fixture(scope="module")
def demo() -> Any:
    spec = importlib.util.spec_from_file_location("demo", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["demo"]


def test_users_come_at_random_times_that_the_seed_decides(demo: Any) -> None:
    users = demo.arrivals(60.0, 0.8, 7)
    assert users == demo.arrivals(60.0, 0.8, 7)
    assert users != demo.arrivals(60.0, 0.8, 8)
    times = [at for at, _ in users]
    assert times == sorted(times)
    assert 40 <= len(users) <= 75
    assert times[-1] <= 60
    assert demo.arrivals(0.0, 0.8, 7) == []


def test_the_bundled_users_ask_what_the_app_takes() -> None:
    lines = (FOLDER / "data" / "users.jsonl").read_text().splitlines()
    forms = [json.loads(line) for line in lines]
    assert len(forms) == 60
    assert max(Counter(lines).values()) >= 3  # some things are asked again: the cache has work
    for form in forms:
        if form["journey"] == "ask-coach":
            assert 1 <= len(form["question"]) <= 200
        else:
            assert form["journey"] == "get-plan"
            assert 1 <= len(form["goal"]) <= 120
            assert form["level"] in LEVELS
            assert 5 <= form["minutes"] <= 90


def answer(*kinds: str, status: int = 200) -> httpx.Response:
    lines = [json.dumps({"kind": kind, "value": f"a {kind}"}) for kind in kinds]
    return httpx.Response(status, text="".join(line + "\n" for line in lines))


@pytest.mark.parametrize(
    ("response", "why"),
    [
        (answer("html", "text", "text", "done"), None),
        (answer("html", "text", "error"), "a error"),
        (answer("html", "text"), "the answer broke off"),
        (answer(), "the answer broke off"),
        (answer(status=422), "HTTP 422"),
        (None, "ConnectError: gone"),
    ],
    ids=["done", "error", "cut", "empty", "refused", "away"],
)
def test_only_an_answer_with_its_end_is_a_success(
    demo: Any, response: httpx.Response | None, why: str | None
) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if response is None:
            raise httpx.ConnectError("gone")
        assert request.url.path == "/ask"
        return response

    async def main() -> Any:
        transport = httpx.MockTransport(handle)
        async with httpx.AsyncClient(base_url="http://app", transport=transport) as client:
            return await demo.send(client, {"journey": "ask-coach", "question": "?"})

    ended = asyncio.run(main())
    assert (ended.why is None) == (why is None)
    assert why is None or why in ended.why


def test_a_taken_port_gives_way_to_a_free_one(
    demo: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = demo.port_or_free(port)
        assert other != port
    assert f"port {port} is taken: using {other}" in capsys.readouterr().err
