"""Cells are played on real sockets, and what a client saw is told truly."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner
from rich.console import Console

from bench.faults import report, tidegate
from bench.faults.__main__ import main
from bench.faults.client import Door
from bench.faults.judge import Observation, Verdict, judge
from bench.faults.run import _result, play, servers
from bench.faults.systems import Pair
from tidegate.cli.build import build_app
from tidegate.testing import Cut, Drip, DuplicateEvent, ErrorEvent, Fault, Script
from tidegate.testing.scenarios import ANSWER, Scenario, scenarios

QUICK = {one.id: one for one in scenarios(0.02)}
SIMPLE = Scenario(id="S00", title="none", primary=Script(), limit=5)


def played(scenario: Scenario, *, retries: int = 0, stream: bool = True) -> Observation:
    """A scenario asked without any gateway."""
    with servers("x") as at:
        door = Door(
            base_url=f"http://127.0.0.1:{at.pair.primary}/v1", model="x-primary", retries=retries
        )
        return asyncio.run(play(scenario, door, at, stream=stream))


def simple(fault: Fault, limit: float = 5) -> Verdict:
    scenario = msgspec.structs.replace(SIMPLE, primary=Script.of(fault), limit=limit)
    return judge(scenario, played(scenario))


@pytest.mark.parametrize("stream", [True, False])
def test_nothing_wrong_is_a_pass(stream: bool) -> None:
    seen = played(SIMPLE, stream=stream)
    (call,) = seen.calls
    assert (call.ended, call.text, call.finish) == ("success", ANSWER, "stop")
    assert call.model == "x-primary"
    assert call.tokens == 60
    assert [one.side for one in seen.tries] == ["primary"]
    assert judge(SIMPLE, seen).word == "pass"


def test_a_truncated_answer_that_ends_cleanly_is_caught() -> None:
    verdict = simple(Cut(40, "clean"))
    assert verdict.word == "fail"
    assert verdict.sentence == "40 of 60 words were called success (no finish reason)"
    assert simple(DuplicateEvent(5)).word == "fail"


@pytest.mark.parametrize("fault", [Cut(40), Cut(40, "reset"), ErrorEvent(40)])
def test_an_answer_that_visibly_breaks_is_safe(fault: Fault) -> None:
    assert simple(fault).word == "safe"


def test_a_call_that_does_not_end_is_a_hang() -> None:
    verdict = simple(Drip(0.5), limit=0.4)
    assert (verdict.word, verdict.sentence) == ("fail", "no end within 0.4 s")


WITHOUT_GATEWAY = {
    "S02": "safe",
    "S03": "pass",
    "S04": "safe",
    "S05": "pass",
    "S08": "safe",
    "S09": "safe",
    "S10": "safe",
    "S11": "pass",
    "S12": "safe",
    "S13": "pass",
    "S14": "safe",
    "S15": "safe",
    "S16": "safe",
}
"""S01, S06 and S07 are left: how long that client waits does not shrink."""


@pytest.mark.parametrize("id_", WITHOUT_GATEWAY)
def test_a_bare_client_gets_its_word(id_: str) -> None:
    # With retries that client would sit out the short outage of the quick form.
    verdict = judge(QUICK[id_], played(QUICK[id_], retries=0 if id_ == "S15" else 2))
    assert verdict.word == WITHOUT_GATEWAY[id_], verdict.sentence


def test_tidegates_app_is_valid(tmp_path: Path) -> None:
    pairs = {"S01": Pair("s01", 1, 2), "S02": Pair("s02", 3, 4)}
    (tmp_path / "tidegate.yaml").write_text(yaml.safe_dump(tidegate.spec(pairs, hold=False)))
    release = build_app(tmp_path).release
    assert release.routes["s01"].models == ("s01-primary", "s01-fallback")
    assert release.models["s02-fallback"].base_url == "http://127.0.0.1:4/v1"
    assert release.routes["s02"].cache_ttl is None
    assert tidegate.spec(pairs, hold=True)["routes"]["s01"]["hold"] == "answer"


def _outcome() -> dict[str, Any]:
    cells = {
        id_: (judge(QUICK[id_], seen), seen)
        for id_, seen in (("S13", played(QUICK["S13"])), ("S12", played(QUICK["S12"])))
    }
    return {
        "date": "2026-11-25T10:00:00+00:00",
        "machine": {"cores": 2, "processor": "P", "system": "Linux", "python": "3.11"},
        "versions": {"client": "1"},
        "stream": True,
        "scenarios": {id_: QUICK[id_].title for id_ in ("S12", "S13")},
        "systems": {"client": _result(cells)},
    }


def test_the_scorecard_has_a_word_a_cell_and_a_reason_for_each_that_is_no_pass(
    tmp_path: Path,
) -> None:
    outcome = _outcome()
    console = Console(record=True, width=120, file=io.StringIO())
    report.show(outcome, console, explain=True)
    text = console.export_text()
    assert "1/0/1/0" in text
    assert "openai client S12 safe: Error code: 400" in text
    assert "S13 pass:" not in text
    kept = tmp_path / "result.json"
    kept.write_text(json.dumps(outcome))
    shown = CliRunner().invoke(main, ["--summary", str(kept)])
    assert "| S13 | 400 content policy every time | pass 0." in shown.output
    assert "- S12 safe: Error code: 400" in shown.output


@pytest.mark.parametrize("options", [["--only", "envoy"], ["--scenarios", "S17"]])
def test_an_unknown_name_is_a_usage_error(options: list[str]) -> None:
    shown = CliRunner().invoke(main, options)
    assert shown.exit_code == 2
    assert options[1] in shown.output
