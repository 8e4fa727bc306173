"""Two checkouts compared: each side runs its own code, and a bar is judged by the spread."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from bench.commits import report
from bench.commits.__main__ import main
from bench.commits.figures import FIGURES, Run, bars, compare, warnings
from bench.commits.trees import WORKING_TREE, differing_requirements, install, require_own_code
from bench.gateway.children import BenchError, Product, child

_PROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "tidegate"
version = "{version}"
dependencies = [{needs}]
[project.entry-points."tidegate.providers"]
p{version} = "tidegate:VERSION"
"""
_ASK = """\
import tidegate; from importlib.metadata import entry_points
print(tidegate.VERSION, *entry_points(group="tidegate.providers").names)
"""


def _write(repository: Path, version: str, needs: str) -> None:
    (repository / "pyproject.toml").write_text(_PROJECT.format(version=version, needs=needs))
    (repository / "src/tidegate").mkdir(parents=True, exist_ok=True)
    (repository / "src/tidegate/__init__.py").write_text(f"VERSION = '{version}'\n")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Version 1 is committed, version 2 is in the files."""
    place = tmp_path / "repository"
    place.mkdir()
    me = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    _write(place, "1", "'one'")
    for words in (("init", "-q"), ("add", "."), (*me, "commit", "-q", "-m", "first")):
        subprocess.run(["git", "-C", str(place), *words], check=True, capture_output=True)
    _write(place, "2", "'one', 'two'")
    return place


def test_each_side_runs_its_own_code_and_its_own_adapters(repository: Path, tmp_path: Path) -> None:
    base = install(repository, "HEAD", "base", tmp_path / "base")
    head = install(repository, WORKING_TREE, "head", tmp_path / "head")
    assert head.commit == f"{base.commit}+changes"
    assert differing_requirements(base, head) == ["two"]
    for side, version in ((base, "1"), (head, "2")):
        told = subprocess.run(
            [sys.executable, "-P", "-c", _ASK],
            env=side.program.environ,
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout.split() == [version, f"p{version}"]

    for side in (base, head):  # a process of one side is not taken for one of the other
        product = Product("p", tmp_path / side.name)
        command = [sys.executable, "-c", "import time; time.sleep(60)", "tidegate up"]
        with child(product, command, environ=side.program.environ):
            require_own_code(side, product)
            with pytest.raises(BenchError, match="code: "):
                require_own_code(head if side is base else base, product)


def test_a_commit_that_is_not_there_is_named(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no-such-commit"):
        install(repository, "no-such-commit", "base", tmp_path / "base")


def _side(cpu: float, memory: float = 50.0) -> dict[str, object]:
    case = {
        "cpu_us": cpu,
        "cpu_us_by_group": {"gateway": cpu / 2},
        "errors": 0,
        "requests": 100,
        "upstream_share": 1.0,
        "receipts_share": 1.0,
        "others_cores": 0.0,
    }
    return {
        "miss": case,
        "hit": {**case, "upstream_share": 0.0},
        "limited": case,
        "stream": {**case, "added_first_token_ms": {"p50": cpu / 200}},
        "memory": {"before_mib": memory, "after_mib": memory + 1},
    }


def _runs(bases: list[float], heads: list[float]) -> list[Run]:
    return [{"base": _side(b), "head": _side(h)} for b, h in zip(bases, heads, strict=True)]


def test_within_the_spread_is_reached_and_beyond_it_is_not() -> None:
    near = compare(_runs([100, 110, 104], [106, 108, 112]))
    (miss,) = [one for one in near if one.figure is FIGURES[0]]
    assert (miss.base.median, miss.base.spread, miss.head.median) == (104, 10, 108)
    assert miss.worse_in == 2
    assert miss.verdict.limit == pytest.approx(1 + 10 / 104)
    assert all(bar.reached for bar in bars(near))
    far = bars(compare(_runs([100, 110, 104], [120, 121, 122])))
    assert [bar.reached for bar in far].count(False) == 5  # all but memory, which is the same


def test_two_runs_judge_nothing() -> None:
    assert {bar.reached for bar in bars(compare(_runs([100, 101], [300, 300])))} == {None}


def test_what_was_not_measured_is_not_reached() -> None:
    assert {bar.reached for bar in bars(compare([]))} == {None}


def test_a_reader_is_told_of_noise_and_errors() -> None:
    runs = _runs([100, 140, 104], [106, 108, 112])
    assert any("spread" in words for words in warnings(runs, compare(runs)))
    runs[0]["head"]["miss"]["errors"] = 3
    assert "run 1, head, miss: 3 of 100 failed" in warnings(runs, [])


def test_the_summary_names_both_commits_and_every_figure(tmp_path: Path) -> None:
    compared = compare(_runs([100, 110, 104], [106, 108, 112]))
    result = {
        "date": "2026-11-27T19:00:00+00:00",
        "base": "abc1234",
        "head": "def5678",
        "machine": {
            "cores": 2,
            "processor": "P",
            "system": "Linux",
            "python": "3.11.7",
            "busy_cores_before": 0.0,
        },
        "settings": {"runs": 3, "seconds": 4.0},
        "figures": [one.to_json() for one in compared],
        "bars": [bar.to_json() for bar in bars(compared)],
        "warnings": [],
    }
    kept = tmp_path / "result.json"
    kept.write_text(json.dumps(result))
    shown = CliRunner().invoke(main, ["--summary", str(kept)])
    assert shown.exit_code == 0, shown.output
    assert "def5678 against abc1234" in shown.output
    assert "| miss: CPU, whole tree, us | 104 | 10 | 108 | 6 | 1.038 | 2 of 3 |" in shown.output
    console = Console(record=True, width=160, file=io.StringIO())
    report.show(result, console)
    text = console.export_text()
    assert all(figure.name in text for figure in FIGURES)


def test_a_base_must_be_named() -> None:
    shown = CliRunner().invoke(main, [])
    assert shown.exit_code == 2
    assert "--base COMMIT" in shown.output
