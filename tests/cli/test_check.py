"""``tidegate check`` as a person and as a program meet it."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from tests.cli.command import run_process
from tests.spec.apps import SOUND, app
from tidegate.cli.check import command


def check(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def test_a_sound_app_passes(tmp_path: Path) -> None:
    result = check(str(app(tmp_path)))
    assert result.exit_code == 0
    assert result.output == "no mistakes\n"


def test_each_mistake_stands_under_its_line(tmp_path: Path) -> None:
    app(tmp_path, SOUND.replace("exact: 1h", "exat: 1h").replace("[small]", "[smal]"))
    result = check(str(tmp_path))
    assert result.exit_code == 1
    assert (
        result.output
        == f"""\
{tmp_path}/tidegate.yaml:27:16  there is no model smal
    fallback: [smal]
               ^
    expected: one of: embed, large, small
    did you mean small?
{tmp_path}/tidegate.yaml:30:13  unknown key exat
    cache: {{exat: 1h}}
            ^
    expected: one of: exact, semantic
    did you mean exact?
2 mistakes
"""
    )


def test_notices_stand_apart_and_do_not_fail(tmp_path: Path) -> None:
    result = check(
        str(app(tmp_path, f"experimental: true\n{SOUND}release: {{stages: [static]}}\n"))
    )
    assert result.exit_code == 0
    assert "notice: release: release is not acted on yet" in result.output
    assert result.output.endswith("no mistakes, 1 notice\n")


def test_a_long_line_and_strange_letters_are_cut_around_the_place(tmp_path: Path) -> None:
    long = "unknown" + "x" * 300
    app(tmp_path, "app: x\nmodels: {" + " " * 200 + "é\u2066: {provider: y}}\n" + f"{long}: 1\n")
    result = check(str(tmp_path))
    assert result.exit_code == 1
    assert "\u2066" not in result.output
    excerpts = [line for line in result.output.splitlines() if line.startswith("    ")]
    assert max(len(line) for line in excerpts[:2]) <= 100


def test_json_names_the_same(tmp_path: Path) -> None:
    app(tmp_path, SOUND.replace("exact: 1h", "exat: 1h"))
    result = check(str(tmp_path), "--json")
    found = json.loads(result.output)
    assert result.exit_code == 1
    assert found == {
        "ok": False,
        "mistakes": [
            {
                "file": str(tmp_path / "tidegate.yaml"),
                "line": 30,
                "column": 13,
                "path": "routes.recommend.cache.exat",
                "message": "unknown key exat",
                "expected": "one of: exact, semantic",
                "nearest": "exact",
                "source": "    cache: {exat: 1h}",
            }
        ],
        "notices": [],
    }


def test_json_of_a_sound_app(tmp_path: Path) -> None:
    result = check(str(app(tmp_path)), "--json")
    assert json.loads(result.output) == {"ok": True, "mistakes": [], "notices": []}


def test_the_schema_is_printed() -> None:
    result = check("--schema")
    assert json.loads(result.output)["title"] == "tidegate.yaml"


def test_no_app_ends_with_code_2_and_a_cure(tmp_path: Path) -> None:
    done = run_process("check", tmp_path)
    assert done.returncode == 2
    assert "no_app" in done.stderr
    assert "cure:" in done.stderr
    assert "Traceback" not in done.stderr
