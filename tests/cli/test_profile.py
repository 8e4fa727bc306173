"""``tidegate profile`` is readable in 80 columns, exact as JSON, and says why it shows nothing."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from tests.ledger.filled import fill
from tidegate.base.errors import RuntimeStateError, UsageError
from tidegate.cli.main import root
from tidegate.cli.pictures import bar, money
from tidegate.ledger.run import connect


@pytest.fixture
def app(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIDEGATE_DATABASE_URL", database_url)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "tidegate.yaml").write_text("app: x\n")
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(root, ["profile", *map(str, arguments)])


def filled(app: Path, url: str) -> Path:
    with connect(url) as connection:
        fill(app / ".tidegate", connection, count=40)
    return app


def test_the_picture_has_every_stage_and_fits_80_columns(app: Path, database_url: str) -> None:
    result = run(filled(app, database_url))
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("get-plan  journey  n 30") for line in lines)
    assert any(line.startswith("recommend  gateway route  n 30") for line in lines)
    begin = lines.index(next(line for line in lines if line.startswith("get-plan")))
    stages = [line.split()[0] for line in lines[begin + 4 : begin + 10]]
    assert stages == ["prompt", "retrieval", "model", "admit", "call", "other"]
    model, admit = lines[begin + 6], lines[begin + 7]
    assert model.startswith("  model")
    assert admit.startswith("    admit")
    assert "%" in model
    assert "█" in model
    assert "tokens 3,000 in, 300 out   cost $0.3   cache hits" in result.output


def test_json_is_one_object_with_what_the_picture_shows(app: Path, database_url: str) -> None:
    result = run(filled(app, database_url), "--journey", "get-plan", "--json")
    told = json.loads(result.output)
    assert [p["name"] for p in told["journeys"]] == ["get-plan"]
    shares = [s["share"] for s in told["journeys"][0]["stages"] if s["within"] is None]
    assert sum(shares) == pytest.approx(1)


def test_why_there_is_nothing_to_show(app: Path) -> None:
    result = run(app)
    assert isinstance(result.exception, RuntimeStateError)
    assert result.exception.code == "ledger_empty"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--window", "soon"), "window_invalid"),
        (("--window", "0s"), "window_invalid"),
        (("--window", "9999d"), "window_invalid"),
        (("--journey", "x"), "journey_unknown"),
        (("--live", "--json"), "live_json"),
    ],
)
def test_wrong_calls_have_a_code(app: Path, arguments: tuple[str, ...], code: str) -> None:
    result = run(app, *arguments)
    assert isinstance(result.exception, UsageError)
    assert result.exception.code == code


def test_live_redraws_until_it_is_stopped(
    app: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("tidegate.cli.profile.time.sleep", pause)
    result = run(filled(app, database_url), "--live")
    assert pauses == [2.0] * 3
    assert isinstance(result.exception, SystemExit | click.Abort | KeyboardInterrupt)


def test_small_sums_and_bars() -> None:
    assert [money(x) for x in (0, 2e-9, 2.1e-05, 0.00012345, 0.3, 1.005, 1234.5)] == [
        "$0",
        "<$0.000001",
        "$0.000021",
        "$0.000123",
        "$0.3",
        "$1.00",
        "$1,234.50",
    ]
    assert [len(bar(x)) for x in (0.0, 0.001, 0.5, 1.0, 7.0)] == [0, 0, 6, 12, 12]
