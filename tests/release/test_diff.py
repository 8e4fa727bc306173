"""What changed, in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.release.apps import edit, write_app
from tests.release.walk import Edit, edits, sample
from tidegate.release.diff import changes, text_change
from tidegate.release.encoding import encode_release
from tidegate.release.files import AppFiles
from tidegate.release.values import (
    CostObjective,
    DeclaredJourney,
    Pinned,
    Release,
    Slo,
    TimeObjective,
    Tool,
)
from tidegate.spec import build_release, load


def built(folder: Path) -> Release:
    return build_release(load(folder, {}).spec, AppFiles(folder))


YAML, PLAN, SEARCH = "tidegate.yaml", "prompts/plan.md", "tools/search.json"


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        (YAML, "exact: 1h", "exact: 10m", ["route recommend: cache 1h -> 10m"]),
        (YAML, "cache: {exact: 1h}", "cache: {}", ["route recommend: cache 1h -> none"]),
        (
            YAML,
            "first_token: 3s",
            "first_token: 800ms",
            ["route recommend: timeouts first_token 3s -> 0.8s"],
        ),
        (
            YAML,
            "a" * 64,
            "c" * 64,
            ["model small: artifact weights sha256 aaaaaaaa.. -> cccccccc.."],
        ),
        (
            YAML,
            "cache: {exact: 1h}",
            "cache: {exact: 1h}\n    queue: {concurrent: 8, waiting: 9, wait: 2s}",
            ["route recommend: queue added"],
        ),
        (YAML, "app: coach", "app: trainer", ["app: coach -> trainer"]),
        (
            YAML,
            "fallback: [small, {",
            "fallback: [{",
            ["route recommend: models large, small -> large"],
        ),
        (
            PLAN,
            "Be kind.\n",
            "Be brief.\nBe kind.\n",
            ["prompt plan: text changed (4 lines, +1 -0)"],
        ),
        (
            PLAN,
            "Be kind.\n",
            "Be kind!\nAlways.\n",
            ["prompt plan: text changed (4 lines, +2 -1)"],
        ),
        (
            SEARCH,
            '"zone": {"type": "string"}',
            '"zone": {"type": "integer"}',
            ["tool search: parameters properties zone type string -> integer"],
        ),
        (SEARCH, '": ', '":  ', ["tool search: layout of its file changed"]),
        (
            "schemas/plan.json",
            '"why": {}, "answer": {}',
            '"answer": {}, "why": {}',
            ["route recommend: order of the schema's properties changed"],
        ),
        (
            SEARCH,
            '"zone": {"type": "string"}',
            '"file": {"type": "integer"}',
            [
                "tool search: parameters properties zone removed",
                "tool search: parameters properties file added",
            ],
        ),
        (
            YAML,
            "output: schemas/plan.json",
            "hold: answer",
            ["route recommend: hold first_content -> answer", "route recommend: output removed"],
        ),
        (
            "templates/plan.md",
            "Walk.",
            "Run.",
            ["route recommend: template text Walk. -> Run."],
        ),
        ("datasets/plans.jsonl", "1}", "1234}", None),
        (
            YAML,
            "datasets:\n",
            "  other: {routes: [recommend]}\ndatasets:\n",
            ["journey other: added"],
        ),
    ],
)
def test_a_change_is_said(
    tmp_path: Path, name: str, old: str, new: str, said: list[str] | None
) -> None:
    folder = write_app(tmp_path)
    before = built(folder)
    edit(folder, old, new, name)
    after = built(folder)
    found = [str(change) for change in changes(before, after)]
    if said is None:
        assert len(found) == 1
        assert "content " in found[0]
        assert "bytes)" in found[0]
    else:
        assert found == said
    assert len(changes(after, before)) == len(found)


def test_the_same_release_has_no_changes(tmp_path: Path) -> None:
    release = built(write_app(tmp_path))
    assert changes(release, release) == ()


def test_added_and_removed_are_opposites(tmp_path: Path) -> None:
    release = built(write_app(tmp_path))
    empty = Release(app="coach")
    gone = {change.what for change in changes(release, empty) if change.kind == "removed"}
    come = {change.what for change in changes(empty, release) if change.kind == "added"}
    assert gone == come
    assert {"model small", "prompt plan", "route recommend", "data set plans"} <= gone


@settings(max_examples=100)
@given(st.text(), st.text())
def test_a_changed_text_is_always_said(a: str, b: str) -> None:
    assert text_change(a, b).startswith("text changed (")


leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
)
trees = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        leaves, lambda t: st.lists(t, max_size=3) | st.dictionaries(st.text(max_size=4), t)
    ),
    max_size=4,
)


def tool(parameters: dict[str, object]) -> Tool:
    file = Pinned(path="t.json", sha256="0" * 64, size=1)
    return Tool(name="t", file=file, description="", parameters=parameters)


@settings(max_examples=100)
@given(trees, trees)
def test_no_difference_goes_unsaid(a: dict[str, object], b: dict[str, object]) -> None:
    left, right = (Release(app="x", tools={"t": tool(parameters)}) for parameters in (a, b))
    found = changes(left, right)
    if encode_release(left) != encode_release(right):
        assert found


WHOLE = sample(Release)
EDITS = [one for one in edits(WHOLE) if one[:2] != (Release, "schema_version")]


@pytest.mark.parametrize("one", EDITS, ids=lambda one: f"{one.kind.__name__}.{one.field}")
def test_an_edit_of_any_field_is_said(one: Edit) -> None:
    assert changes(WHOLE, one.value)
    assert changes(one.value, WHOLE)


def test_objectives_are_said_in_their_units() -> None:
    def with_slo(seconds: float, dollars: float) -> Release:
        slo = Slo(total=TimeObjective(p95=seconds), cost=CostObjective(p95=dollars))
        return Release(app="x", journeys={"j": DeclaredJourney(name="j", slo=slo)})

    found = changes(with_slo(90.0, 0.5), with_slo(120.0, 0.25))
    assert [str(one) for one in found] == [
        "journey j: slo total p95 90s -> 2m",
        "journey j: slo cost p95 0.5 -> 0.25",
    ]
