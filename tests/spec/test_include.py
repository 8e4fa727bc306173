"""Several files make one spec; each mistake is named in the file that holds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.spec.apps import SOUND, app, mistakes, only
from tidegate.spec import load

MODELS, REST = SOUND.split("prompts:\n", 1)
MODELS = MODELS.removeprefix("app: coach\n")


def test_sections_of_several_files_are_joined(tmp_path: Path) -> None:
    app(
        tmp_path,
        "app: coach\ninclude: [specs/models.yaml, specs/more.yaml]\nprompts:\n" + REST,
        **{
            "specs/models.yaml": MODELS,
            "specs/more.yaml": "include: specs/most.yaml\njourneys: {b: {}}\n",
            "specs/most.yaml": "journeys: {c: {}}\n",
        },
    )
    loaded = load(tmp_path, {})
    assert set(loaded.spec.journeys) == {"get-plan", "b", "c"}
    assert set(loaded.spec.models) == {"small", "large", "embed"}
    assert loaded.spec.include == ("specs/models.yaml", "specs/more.yaml")
    assert loaded.sources == (
        *("tidegate.yaml", "specs/models.yaml"),
        *("specs/more.yaml", "specs/most.yaml"),
    )


def test_a_mistake_is_named_in_its_file(tmp_path: Path) -> None:
    app(
        tmp_path,
        "app: coach\ninclude: m.yaml\nprompts:\n" + REST.replace("models: large", "models: larg"),
        **{"m.yaml": MODELS.replace("kind: embeddings", "kind: embedings")},
    )
    first, second = mistakes(tmp_path)
    assert (first.file, first.path) == (str(tmp_path / "tidegate.yaml"), "routes.recommend.models")
    assert (second.file, second.path) == (str(tmp_path / "m.yaml"), "models.embed.kind")
    assert "embedings" in second.source


@pytest.mark.parametrize(
    ("main", "other", "message"),
    [
        ("include: b.yaml\njourneys: {a: {}}", "journeys: {a: {}}", "journeys.a is defined twice"),
        ("include: b.yaml\ngateway: {}", "gateway: {}", "gateway is defined twice"),
        ("include: b.yaml", "app: y", "app is defined twice"),
        ("include: b.yaml", "include: tidegate.yaml", "tidegate.yaml -> b.yaml -> tidegate.yaml"),
        ("include: b.yaml", "include: b.yaml", "b.yaml -> b.yaml"),
        ("include: c.yaml", "", "no file c.yaml"),
        ("include: ../b.yaml", "", "not a path inside"),
        ("include: /etc/passwd", "", "not a path inside"),
        ("include: {a: b}", "", "names no file"),
        ("include: b.yaml", "[1]", "holds no mapping"),
        ("include: b.yaml", "", "is empty"),
        ("include: b.yaml", "a: [", "not valid YAML"),
        ("include: .", "", "is a folder"),
    ],
)
def test_what_includes_may_not_do(tmp_path: Path, main: str, other: str, message: str) -> None:
    app(tmp_path, f"app: x\n{main}\n", **{"b.yaml": f"{other}\n"})
    assert message in only(mistakes(tmp_path)).message


def test_a_file_may_be_included_from_two_sides(tmp_path: Path) -> None:
    app(
        tmp_path,
        "app: x\ninclude: [a.yaml, b.yaml]\n",
        **{"a.yaml": "include: b.yaml\n", "b.yaml": "journeys: {a: {}}\n"},
    )
    assert set(load(tmp_path, {}).spec.journeys) == {"a"}


def test_the_number_of_files_is_bounded(tmp_path: Path) -> None:
    files = {f"f{n}.yaml": f"include: f{n + 1}.yaml\n" for n in range(200)}
    app(tmp_path, "app: x\ninclude: f0.yaml\n", **files)
    assert "more than 64 files" in only(mistakes(tmp_path)).message
