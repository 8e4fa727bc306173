"""``tidegate build`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import run
from tests.release.apps import edit, write_app


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return write_app(tmp_path / "app")


def test_a_build_prints_its_digest_and_what_it_pins(app: Path) -> None:
    done = run("build", app)
    assert done.returncode == 0
    first, counts, *_ = done.stdout.splitlines()
    assert first.startswith("sha256:")
    assert len(first) == 71
    assert "2 models, 1 prompt, 1 tool, 1 route, 1 journey, 1 data set, 1 eval, 5 files" in counts
    assert "nothing changed" in run("build", app).stdout


def test_a_build_says_what_the_spec_has_without_an_effect(app: Path) -> None:
    notice = "notice: journeys.get-plan.slo: slo is not acted on yet"
    done = run("build", app)
    assert notice in done.stderr
    assert notice not in done.stdout
    answer = json.loads(run("build", app, "--json").stdout)
    assert "journeys.get-plan.slo" in [one["path"] for one in answer["notices"]]
    edit(app, "experimental: true", "experimental: false")
    refused = run("build", app)
    assert refused.returncode == 1
    assert "slo is not built yet" in refused.stdout


def test_a_second_build_says_what_changed(app: Path) -> None:
    before = json.loads(run("build", app, "--json").stdout)
    assert (before["before"], before["changes"]) == (None, [])
    edit(app, "exact: 1h", "exact: 10m")
    assert "route recommend: cache 1h -> 10m" in run("build", app).stdout
    after = json.loads(run("build", app, "--json").stdout)
    assert after["before"] == after["digest"] != before["digest"]
    said = json.loads(run("build", app, "--diff", "previous", "latest-build", "--json").stdout)
    assert (said["a"], said["b"]) == (before["digest"], after["digest"])
    change = {"kind": "changed", "what": "route recommend", "how": "cache 1h -> 10m"}
    assert said["changes"] == [change]
    short = [digest[7:15] for digest in (after["digest"], before["digest"])]
    assert "route recommend: cache 10m -> 1h" in run("build", app, "--diff", *short).stdout


def test_show_lists_everything_that_is_pinned(app: Path) -> None:
    digest = json.loads(run("build", app, "--json").stdout)["digest"]
    text = run("build", app, "--show", digest[:16]).stdout
    for word in ("a" * 64, "b" * 64, "MIT", "prompts/plan.md", "schemas/plan.json", "*.gguf"):
        assert word in text
    whole = json.loads(run("build", app, "--show", "latest-build", "--json").stdout)
    assert whole["digest"] == digest
    files = whole["release"]["files"]
    assert {"path", "sha256", "size"} == set(files["datasets/plans.jsonl"])
    (app / "tidegate.yaml").write_text("no longer a spec")
    assert run("build", app, "--show", digest).stdout == text


def test_an_unknown_release_is_told_with_the_nearest(app: Path) -> None:
    nothing = run("build", app, "--show", "latest-build")
    assert nothing.returncode == 1
    assert "nothing was built yet" in nothing.stderr
    run("build", app)
    done = run("build", app, "--show", "latest", "--json")
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "release_unknown"
    assert "latest-build" in error["message"]


def test_mistakes_are_shown_as_check_shows_them(app: Path) -> None:
    edit(app, "prompt: plan", "prompt: plam")
    done = run("build", app)
    assert done.returncode == 1
    assert done.stdout == run("check", app).stdout
    assert "did you mean plan?" in done.stdout
    assert json.loads(run("build", app, "--json").stdout)["error"]["code"] == "spec_invalid"
    assert not (app / ".tidegate").exists()


@pytest.mark.parametrize(
    "arguments",
    [["--show"], ["--show", "a", "--diff", "a", "b"], ["--diff", "a"], ["--nonsense"]],
)
def test_wrong_usage_exits_with_2(app: Path, arguments: list[str]) -> None:
    assert run("build", app, *arguments).returncode == 2


def test_no_app_exits_with_2(tmp_path: Path) -> None:
    assert run("build", tmp_path).returncode == 2


def test_help_has_an_example() -> None:
    assert "tidegate build examples/fitness" in run("build", "--help").stdout
