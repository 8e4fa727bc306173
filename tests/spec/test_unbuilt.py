"""Keys that are not built: a protection that does nothing is a mistake, and nothing is silent."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from tests.spec.apps import SOUND, app, mistakes, only, sound
from tidegate.spec import Notice, load, plugins
from tidegate.spec.unbuilt import UNBUILT

CHOICE = "models: {small: small, large: large, choose: intent}"
DATA = "datasets: {d: {file: prompts/plan.md}}\n"
EVAL = DATA + "evals: {e: {dataset: d, evaluator: judge, gate: {test: threshold, rate: 90%}}}\n"
VARIANT = f"    flag: f\n    variants: {{v: {{{CHOICE}}}}}\n"
USES = {
    ("routes", "*", "models", "small"): ("    models: large\n", f"    {CHOICE}\n"),
    ("routes", "*", "variants", "*", "models", "small"): ("    prompt: plan\n", VARIANT),
    ("routes", "*", "cache", "semantic"): (
        "cache: {exact: 1h}",
        "cache: {semantic: {ttl: 1m, max_error: 1%}}",
    ),
    ("routes", "*", "guard"): ("    prompt: plan\n", "    prompt: plan\n    guard: [pii]\n"),
    ("tools", "*", "cost"): ("search.json}", "search.json, cost: 0.002}"),
    ("journeys", "*", "slo"): ("[recommend, embed]", "[recommend], slo: {availability: 99%}"),
    ("datasets",): ("prompts:\n", DATA + "prompts:\n"),
    ("evals",): ("prompts:\n", EVAL + "prompts:\n"),
    ("evals", "*", "gate"): ("prompts:\n", EVAL + "prompts:\n"),
    ("release",): ("prompts:\n", "release: {stages: [static]}\nprompts:\n"),
    ("environments",): ("prompts:\n", "environments: {dev: {}}\nprompts:\n"),
    ("environments", "*", "from"): (
        "prompts:\n",
        "environments: {dev: {}, prod: {from: dev}}\nprompts:\n",
    ),
    ("environments", "*", "approvals"): (
        "prompts:\n",
        "environments: {prod: {approvals: 1}}\nprompts:\n",
    ),
}
"""For each key of the table: what in the sound spec is written otherwise to use it."""
PLACES = {
    ("routes", "*", "models", "small"): "routes.recommend.models.small",
    ("routes", "*", "variants", "*", "models", "small"): "routes.recommend.variants.v.models.small",
    ("routes", "*", "cache", "semantic"): "routes.recommend.cache.semantic",
    ("routes", "*", "guard"): "routes.recommend.guard",
    ("tools", "*", "cost"): "tools.search.cost",
    ("journeys", "*", "slo"): "journeys.get-plan.slo",
    ("evals", "*", "gate"): "evals.e.gate",
    ("environments", "*", "from"): "environments.prod.from",
    ("environments", "*", "approvals"): "environments.prod.approvals",
}


def using(pattern: tuple[str, ...], *, experimental: bool) -> str:
    old, new = USES[pattern]
    assert SOUND.count(old) == 1
    word = "experimental: true\n" if experimental else ""
    return word + SOUND.replace(old, new)


def paths(notices: tuple[Notice, ...]) -> list[str]:
    return [one.path for one in notices]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plug-ins that the examples name are installed, so that only the table speaks."""
    points = EntryPoints(
        EntryPoint(name=name, value="m:f", group=group)
        for name, group in (
            ("pii", "tidegate.guards"),
            ("judge", "tidegate.evaluators"),
            ("openai", "tidegate.providers"),
        )
    )
    monkeypatch.setattr(plugins, "entry_points", lambda group: points.select(group=group))


@pytest.mark.parametrize("pattern", UNBUILT, ids=".".join)
def test_a_protection_that_is_not_built_is_a_mistake_and_all_else_a_notice(
    tmp_path: Path, pattern: tuple[str, ...]
) -> None:
    place = PLACES.get(pattern, pattern[0])
    protecting = {
        PLACES.get(key, key[0])
        for key in UNBUILT
        if UNBUILT[key].protects and USES[key][1] == USES[pattern][1]
    }
    folder = app(tmp_path, using(pattern, experimental=False))
    assert {one.path for one in mistakes(folder)} == protecting
    assert (place in protecting) == UNBUILT[pattern].protects
    if not protecting:
        assert place in [
            one.path for one in sound(tmp_path, using(pattern, experimental=False)).notices
        ]
    loaded = sound(tmp_path, using(pattern, experimental=True))
    (notice,) = [one for one in loaded.notices if one.path == place]
    assert notice.message.endswith(f"is not acted on yet: {UNBUILT[pattern].instead}")


def test_the_mistake_says_how_to_go_on(tmp_path: Path) -> None:
    mistake = only(mistakes(app(tmp_path, using(("routes", "*", "guard"), experimental=False))))
    assert mistake.message == "guard is not built yet: only the schema of output is checked"
    assert mistake.expected is not None
    assert "experimental: true" in mistake.expected
    assert mistake.source == "    guard: [pii]"


@pytest.mark.parametrize(
    "nothing", ["guard: []", "cache: {}", "environments: {}", "evals: {}", "datasets: {}"]
)
def test_a_key_that_asks_for_nothing_is_neither(tmp_path: Path, nothing: str) -> None:
    spec = SOUND.replace("cache: {exact: 1h}", nothing) if nothing[0] in "gc" else SOUND + nothing
    assert sound(tmp_path, spec).notices == ()


@pytest.mark.parametrize(
    ("used", "place", "name"),
    [
        (USES["routes", "*", "guard"], "routes.recommend.guard[0]", "pii"),
        (USES["evals", "*", "gate"], "evals.e.evaluator", "judge"),
    ],
)
def test_a_check_that_is_not_installed_is_named(
    tmp_path: Path, used: tuple[str, str], place: str, name: str
) -> None:
    """An experimental spec may be ahead of what is built, but what nearly names a check that is
    there is a slip."""
    old, new = used
    for wrong, near in ((f"{name}s", name), ("no_such_thing", None)):
        sound_but = SOUND.replace(old, new.replace(name, wrong))
        ahead = app(tmp_path / wrong, f"experimental: true\n{sound_but}")
        if near is None:
            messages = {one.path: one.message for one in load(ahead, {}).notices}
            assert messages[place].startswith("there is no ")
        else:
            mistake = only(mistakes(ahead))
            assert (mistake.path, mistake.nearest) == (place, near)
        found = mistakes(app(tmp_path / "plain", sound_but))
        assert any(place.startswith(one.path) for one in found)


def test_a_guard_that_is_nowhere_never_passes(tmp_path: Path) -> None:
    spec = using(("routes", "*", "guard"), experimental=False).replace("pii", "no_such_guard")
    assert only(mistakes(app(tmp_path, spec))).path == "routes.recommend.guard"
