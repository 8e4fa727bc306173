"""A small app folder to build from."""

from __future__ import annotations

from pathlib import Path

SPEC = """\
app: coach
experimental: true
models:
  small:
    provider: local
    artifact:
      {wheel: tiny==1.0, member: "*.gguf", sha256: AAA, source_sha256: BBB, licence: MIT}
    price: {input: 0, output: 0}
  large:
    provider: openai
    base_url: ${LARGE_BASE_URL}
    name: vendor-2026-05-01
    keys: secret:large
prompts:
  plan: {file: prompts/plan.md, inputs: {goal: string, level: [beginner, regular]}}
tools:
  search: {schema: tools/search.json, cost: 0.002}
routes:
  recommend:
    prompt: plan
    models: {small: small, large: large, choose: intent}
    tools: [search]
    cache: {exact: 1h}
    timeouts: {first_token: 3s}
    fallback: [small, {template: templates/plan.md}]
    caps: {prompt_tokens: 4000, output_tokens: 512}
    output: schemas/plan.json
journeys:
  get-plan: {routes: [recommend], slo: {availability: 99.5%, total: {p95: 6s}}}
datasets:
  plans: {file: datasets/plans.jsonl, cluster: client_id}
evals:
  accuracy: {dataset: plans, evaluator: judge, gate: {test: noninferiority, margin: 3%}}
""".replace("AAA", "a" * 64).replace("BBB", "b" * 64)

FILES = {
    "tidegate.yaml": SPEC,
    "prompts/plan.md": "Plan for {{ goal }}.\nLevel {{ level }}.\nBe kind.\n",
    "templates/plan.md": "Walk.\n",
    "tools/search.json": '{"type": "object", "description": "Find workouts.",'
    ' "properties": {"zone": {"type": "string"}, "area": {"type": "string"}}}',
    "schemas/plan.json": '{"type": "object", "properties": {"why": {}, "answer": {}}}',
    "datasets/plans.jsonl": '{"client_id": 1}\n',
}


def write_app(folder: Path, order: int = 1) -> Path:
    """Write the app into ``folder``; with ``order=-1`` the files in reverse."""
    for name, text in list(FILES.items())[::order]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def edit(folder: Path, old: str, new: str, name: str = "tidegate.yaml") -> None:
    """Replace ``old``, which must be there, by ``new``."""
    path = folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
