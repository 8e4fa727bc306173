"""Variables are bound in one place, from the mapping handed in, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.spec.apps import SOUND, app, changed, mistakes, only, sound
from tidegate.base.variables import bind
from tidegate.spec import load


@pytest.mark.parametrize(
    ("text", "bound", "unset"),
    [
        ("plain $5", "plain $5", ()),
        ("${A}-${B:-b}", "1-b", ()),
        ("${E:-e}${E}", "e", ()),
        ("${NO}${NO:-}", "${NO}", ("NO",)),
        ("$${A} $$", "${A} $", ()),
    ],
)
def test_both_forms(text: str, bound: str, unset: tuple[str, ...]) -> None:
    found = bind(text, {"A": "1", "E": ""})
    assert (found.text, found.unset, found.broken) == (bound, unset, False)


@pytest.mark.parametrize("text", ["${", "${}", "${1}", "${A", "${A:b}"])
def test_a_broken_form_is_told(text: str) -> None:
    assert bind(text, {"A": "1"}).broken


def test_a_variable_may_be_a_number(tmp_path: Path) -> None:
    text = SOUND.replace("output_tokens: 512", 'output_tokens: "${MOST:-512}"')
    assert sound(tmp_path, text).spec.routes["recommend"].caps.output_tokens == 512
    assert load(tmp_path, {"MOST": "7"}).spec.routes["recommend"].caps.output_tokens == 7


def test_a_variable_is_text_where_text_may_stand(tmp_path: Path) -> None:
    text = SOUND.replace("name: embedder-1", "name: ${NAME}").replace("goal: string", '"${A}": {}')
    text = text.replace('"${A}": {}', 'goal: {default: "${N}"}')
    loaded = sound(tmp_path, text, NAME="404", N="5")
    assert loaded.spec.models["embed"].name == "404"
    assert loaded.spec.prompts["plan"].inputs["goal"].default == "5"


def test_an_empty_variable_without_quotes_leaves_a_key_out(tmp_path: Path) -> None:
    text = SOUND.replace("keys: secret:large", "keys: ${KEYS:-}")
    assert sound(tmp_path, text).spec.models["large"].keys is None


def test_a_variable_without_quotes_in_a_flow_mapping_is_told(tmp_path: Path) -> None:
    found = changed(tmp_path, "output_tokens: 512", "output_tokens: ${MOST}", MOST="7")
    assert "stands in quotes" in only(found).message


def test_an_unset_variable_is_one_mistake_at_its_place(tmp_path: Path) -> None:
    mistake = only(changed(tmp_path, "output_tokens: 512", "output_tokens: '${MOST}'"))
    assert mistake.message == "variable MOST is not set"
    assert mistake.path == "routes.recommend.caps.output_tokens"


def test_a_base_url_is_kept_for_where_it_is_served(tmp_path: Path) -> None:
    text = SOUND.replace("${LARGE_BASE_URL:-http://127.0.0.1:9}", "${LARGE}")
    loaded = sound(tmp_path, text, LARGE="http://here")
    assert loaded.spec.models["large"].base_url == "${LARGE}"
    assert loaded.notices == ()
    notice = only(load(tmp_path, {}).notices)  # type: ignore[arg-type]
    assert notice.path == "models.large.base_url"
    assert "LARGE is not set" in notice.message


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("keys: secret:large", "keys: ${KEY}"),
        ("exact: 1h", "exact: '${KEY}'"),
        ("kind: embeddings", "kind: ${KEY}"),
        ("output_tokens: 512", "output_tokens: '${KEY}'"),
        ("content: off", "content: '${KEY}'"),
        ("output: 2.5", "output: '${KEY}'"),
        ("output: schemas/plan.json", "output: ${KEY}/../.."),
    ],
)
@pytest.mark.parametrize("value", ["sk-hunter2", "hunter2" * 30, "hunter2\ud800"])
def test_no_mistake_shows_what_a_variable_held(
    tmp_path: Path, old: str, new: str, value: str
) -> None:
    found = changed(tmp_path, old, new, KEY=value)
    assert found
    assert "hunter2" not in repr(found)


def test_includes_may_be_variables(tmp_path: Path) -> None:
    app(tmp_path, "include: ${WHERE}.yaml\n", **{"main.yaml": SOUND})
    assert load(tmp_path, {"WHERE": "main"}).spec.app == "coach"
    assert "not set" in only(mistakes(tmp_path)).message
