"""The sixteen scenarios, played to a real gateway whose clocks are as short as the faults: what the
scorecard says of Tidegate must stay so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
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
from tidegate.testing.scenarios import scenarios

SCENARIOS = tuple(
    slow if quick.id == "S07" else quick  # which has its end in sight: a busy machine needs more
    for quick, slow in zip(scenarios(0.2), scenarios(0.4), strict=True)
)
CLOCKS = Timeouts(connect=1, first_token=1, idle=2, total=9)
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
) -> Iterator[dict[str, Verdict]]:
    """What came of every cell; all are played side by side."""
    played = {f"{one.id}{end}": one for end in ("", "-held") for one in SCENARIOS}
    with ExitStack() as stack:
        cells = {name: stack.enter_context(servers(name.lower())) for name in played}
        url = stack.enter_context(contextmanager(_fresh_database)(postgres_server, TEMPLATE))
        folder = tmp_path_factory.mktemp("faults")
        gateway = GatewayProcess(folder, release_of(cells), url, f"unix://{valkey_server}")
        stack.callback(gateway.stop)
        gateway.start()

        async def one(name: str, number: int) -> Verdict:
            await asyncio.sleep(number * STAGGER)
            door = Door(base_url=f"{gateway.url}/v1", model=name, api_key=gateway.key)
            return judge(played[name], await play(played[name], door, cells[name]))

        async def every() -> list[Verdict]:
            return await asyncio.gather(*(one(name, n) for n, name in enumerate(played)))

        yield dict(zip(played, asyncio.run(every()), strict=True))


@pytest.mark.parametrize("held", [False, True], ids=["plain", "held"])
@pytest.mark.parametrize("id_", [one.id for one in SCENARIOS])
def test_each_scenario_has_the_word_that_is_promised(
    verdicts: dict[str, Verdict], id_: str, held: bool
) -> None:
    found = verdicts[f"{id_}-held" if held else id_]
    word = "safe" if id_ in SAFE and not held else "pass"
    assert found.word == word, found.sentence
