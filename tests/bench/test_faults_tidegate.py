"""The sixteen scenarios, played to a real gateway whose clocks are as short as the faults: what the
scorecard says of Tidegate must stay so. Long: the outage of a minute, and all at their own pace."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterable
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bench.faults.client import Door
from bench.faults.judge import Verdict, judge
from bench.faults.run import Servers, play, servers
from tests.conftest import TEMPLATE, _fresh_database
from tests.gateway.app import GatewayProcess
from tidegate.release.values import (
    Breaker,
    GatewaySettings,
    Model,
    Release,
    Retries,
    Route,
    Timeouts,
)
from tidegate.stores.postgres import PostgresPlace
from tidegate.testing.scenarios import Scenario, scenarios

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = tuple(
    slow if quick.id == "S07" else quick  # which has its end in sight: a busy machine needs more
    for quick, slow in zip(scenarios(0.2), scenarios(0.4), strict=True)
)
CLOCKS = Timeouts(connect=1, first_token=1, idle=2, total=9)
SLOW = {"S15"}
"""An outage that is over after twelve seconds also in the short form; ``TestBreaker`` in the
gateway's tests sees a model come back sooner."""
STAGGER = 0.1
"""Seconds from the start of one scenario to that of the next."""
SAFE = {"S08", "S09", "S14"}
"""What broke off after its first word cannot be made whole, unless the answer is held."""


def release_of(cells: dict[str, Servers]) -> Release:
    """A route for each cell, of the same name: with ``-held`` at its end it holds answers."""
    models, routes = {}, {}
    for cell_name, cell in cells.items():
        names = cell.pair.models
        for name, server in zip(names, (cell.primary, cell.fallback), strict=True):
            models[name] = Model(
                name=name,
                kind="chat",
                provider="openai",
                upstream=name,
                base_url=server.base_url,
                breaker=Breaker(open=1.0),
            )
        routes[cell_name] = Route(
            name=cell_name,
            kind="chat",
            models=names,
            timeouts=CLOCKS,
            retries=Retries(backoff=0.1),
            hold="answer" if cell_name.endswith("-held") else "first_content",
        )
    return Release(app="faults", models=models, routes=routes, gateway=GatewaySettings())


@pytest.fixture(scope="module")
def verdicts(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresPlace, valkey_server: Path
) -> dict[str, Verdict]:
    """What came of every cell of ``make test``; all are played side by side."""
    quick = [one for one in SCENARIOS if one.id not in SLOW]
    return played_by_a_gateway(
        quick, tmp_path_factory.mktemp("faults"), postgres_server, valkey_server
    )


def played_by_a_gateway(
    scenarios: Iterable[Scenario], folder: Path, postgres: PostgresPlace, valkey: Path
) -> dict[str, Verdict]:
    """Each scenario twice, the second time of a route that holds answers."""
    played = {f"{one.id}{end}": one for end in ("", "-held") for one in scenarios}
    with ExitStack() as stack:
        cells = {name: stack.enter_context(servers(name.lower())) for name in played}
        url = stack.enter_context(contextmanager(_fresh_database)(postgres, TEMPLATE))
        gateway = GatewayProcess(folder, release_of(cells), url, f"unix://{valkey}")
        stack.callback(gateway.stop)
        gateway.start()

        async def one(name: str, number: int) -> Verdict:
            await asyncio.sleep(number * STAGGER)
            door = Door(base_url=f"{gateway.url}/v1", model=name, api_key=gateway.key)
            return judge(played[name], await play(played[name], door, cells[name]))

        async def every() -> list[Verdict]:
            return await asyncio.gather(*(one(name, n) for n, name in enumerate(played)))

        return dict(zip(played, asyncio.run(every()), strict=True))


@pytest.mark.parametrize("held", [False, True], ids=["plain", "held"])
@pytest.mark.parametrize("id_", [one.id for one in SCENARIOS if one.id not in SLOW])
def test_each_scenario_has_the_word_that_is_promised(
    verdicts: dict[str, Verdict], id_: str, held: bool
) -> None:
    found = verdicts[f"{id_}-held" if held else id_]
    assert found.word == promised(id_, held), found.sentence


def promised(id_: str, held: bool) -> str:
    return "safe" if id_ in SAFE and not held else "pass"


@pytest.mark.long
def test_a_model_that_was_away_is_asked_again(
    tmp_path: Path, postgres_server: PostgresPlace, valkey_server: Path
) -> None:
    slow = [one for one in SCENARIOS if one.id in SLOW]
    for found in played_by_a_gateway(slow, tmp_path, postgres_server, valkey_server).values():
        assert found.word == "pass", found.sentence


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_scorecard_at_its_own_pace_is_the_documented_one() -> None:
    """As ``make bench-faults`` plays it, to ``tidegate up`` with the clocks of a user."""
    command = ["-m", "bench.faults", "--only", "tidegate,tidegate-hold", "--json"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    systems = json.loads(done.stdout.splitlines()[-1])["systems"]
    for name, held in (("tidegate", False), ("tidegate-hold", True)):
        words = {id_: cell["word"] for id_, cell in systems[name]["cells"].items()}
        assert words == {one.id: promised(one.id, held) for one in SCENARIOS}
