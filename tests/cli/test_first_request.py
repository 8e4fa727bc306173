"""The request that `tidegate up` proposes is one that the gateway takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import run
from tidegate.cli.up import _plain_route, _sample_inputs
from tidegate.release.values import Input, Pinned, Prompt, Release, Route

PIN = Pinned(path="p.md", sha256="0" * 64, size=1)
INPUTS = {
    "tone": Input(type="string", choices=("formal", "friendly")),
    "many": Input(type="integer"),
    "spare": Input(type="string", required=False, default="x"),
}
TEMPLATED = Route(name="a", kind="chat", models=("m",), prompt="p")


def release(*routes: Route) -> Release:
    prompt = Prompt(name="p", file=PIN, text="", inputs=INPUTS)
    return Release(app="a", prompts={"p": prompt}, routes={one.name: one for one in routes})


def test_a_route_without_inputs_is_proposed_where_there_is_one() -> None:
    both = release(TEMPLATED, Route(name="b", kind="chat", models=("m",)))
    assert _plain_route(both) == "b"
    assert _sample_inputs(both, "b") == {}


def test_inputs_that_a_request_must_carry_are_proposed() -> None:
    assert _sample_inputs(release(TEMPLATED), "a") == {"tone": "formal", "many": 1}


@pytest.mark.parametrize("keys", ["", ", keys: secret:vendor"])
def test_a_missing_key_of_a_provider_ends_up_at_once(app_folder: Path, keys: str) -> None:
    model = f"{{provider: antropic, base_url: http://127.0.0.1:9/v1, name: far-1{keys}}}"
    spec = f"app: tiny\nmodels:\n  far: {model}\nroutes:\n  chat: {{models: far}}\n"
    (app_folder / "tidegate.yaml").write_text(spec)
    ended = run("up", str(app_folder), "--port", "0", "--operator-port", "0")
    assert ended.returncode == 1
    assert ("TIDEGATE_SECRET_VENDOR" if keys else "no provider 'antropic'") in ended.stderr
