"""``tidegate flag`` and ``tidegate traffic``, against a gateway that serves meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.gateway.conftest import ANSWER
from tests.gateway.releases import sample_release
from tests.gateway.test_bad_input import eventually
from tests.gateway.test_releases import DOCUMENT, Fleet, flagged, fleet, moved
from tidegate.base.errors import TidegateError
from tidegate.cli import flag, traffic
from tidegate.testing import ModelServer


@pytest.fixture
def upstream() -> Iterator[ModelServer]:
    with ModelServer(answer=ANSWER) as server:
        yield server


@pytest.fixture
def app(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> Iterator[Fleet]:
    release = flagged(sample_release(upstream.base_url, upstream.base_url))
    with fleet(tmp_path, release, database_url, valkey_url, workers=2) as running:
        (tmp_path / "app" / "tidegate.yaml").write_text("app: sample\n")
        # The gateway is ready with its first worker; commands wait for all that are there.
        eventually(lambda: len(running.workers(0) or ()) == 2, timeout=20)
        yield running


def run(app: Fleet, command: Any, *words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(command, [*words, "--app", app.gateway.runtime.app])
    if isinstance(result.exception, TidegateError):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def test_weights_are_set_shown_and_taken_away(app: Fleet, upstream: ModelServer) -> None:
    other = app.build(moved(sample_release(upstream.base_url), upstream.base_url + "/"))
    own = app.gateway.digest
    words = (f"{own[7:19]}=0", f"{other[7:19]}=100")
    said = run(app, traffic.command, "plain", *words, "--json", "--reason", "try it")
    told = json.loads(said.output)
    assert told["complete"] is True
    assert len(told["acknowledged"]) == 2
    assert all(one["ms"] >= 0 for one in told["acknowledged"])
    assert told["change"]["reason"] == "try it"
    assert app.served_by("anyone") == other  # no later request is served by the old weights
    shown = run(app, traffic.command, "--json")
    assert json.loads(shown.output) == {"traffic": {"plain": {own: 0, other: 100}}}
    assert "in force in" in run(app, traffic.command, "plain", "--off").output
    assert app.served_by("anyone") == own
    assert "no weights" in run(app, traffic.command).output


def test_a_worker_that_cannot_load_a_release_is_named(app: Fleet, upstream: ModelServer) -> None:
    other = app.build(moved(sample_release(upstream.base_url), "${NO_SUCH_URL}"))
    said = run(app, traffic.command, "plain", f"{other}=100", code=1)
    assert said.output.count("cannot be loaded here") == 2
    assert "NO_SUCH_URL" in said.output


SENSELESS = [
    (("plain",), "weights_missing"),
    (("plain", "{own}=100", "--off"), "weights_missing"),
    (("plain", "{own}"), "weights_invalid"),
    (("plain", "{own}=half"), "weights_invalid"),
    (("plain", "{own}=90"), "weights_invalid"),
    (("plain", "{own}=50", "{own}=50"), "weights_invalid"),
    (("{own}=100",), "route_missing"),
    (("--off",), "route_missing"),
    (("plain", "--off"), "weights_unknown"),
    (("plan b", "{own}=100"), "route_unknown"),
    (("plain", "sha256:77=100"), "release_unknown"),
]


def test_weights_that_make_no_sense_change_nothing(app: Fleet) -> None:
    for words, code in SENSELESS:
        filled = [word.format(own=app.gateway.digest) for word in words]
        with pytest.raises(TidegateError) as raised:
            run(app, traffic.command, *filled)
        assert raised.value.code == code
    assert "no weights" in run(app, traffic.command).output


def test_flags_are_set_listed_asked_and_rolled_back(app: Fleet, tmp_path: Path) -> None:
    ask = ("eval", "plain-model", "--context", "targetingKey=user-1", "--json")
    pinned = json.loads(run(app, flag.command, *ask).output)
    assert pinned["document"].startswith("the release's")
    everybody = {"fractional": [["off", 0], ["large", 1]]}
    document = {"flags": {"plain-model": {**DOCUMENT["flags"]["plain-model"]}}}
    document["flags"]["plain-model"]["targeting"] = everybody
    file = tmp_path / "flags.json"
    file.write_text(json.dumps(document))
    told = json.loads(run(app, flag.command, "set", str(file), "--json").output)
    assert len(told["acknowledged"]) == 2
    with app.gateway.client() as client:
        assert app.ask(client, "user-1").headers["x-tidegate-variant"] == "large"
        assert json.loads(run(app, flag.command, *ask).output) == {
            "flag": "plain-model",
            "variant": "large",
            "reason": "TARGETING_MATCH",
            "document": "document 1",
        }
        listed = json.loads(run(app, flag.command, "list", "--json").output)["documents"]
        assert [(one["number"], one["in_force"]) for one in listed] == [(1, True)]
        assert "in force" in run(app, flag.command, "list").output
        run(app, flag.command, "rollback")
        variant = app.ask(client, "user-1").headers["x-tidegate-variant"]
    assert variant == pinned["variant"]


def test_a_broken_document_is_refused_and_nothing_changes(app: Fleet, tmp_path: Path) -> None:
    file = tmp_path / "flags.json"
    file.write_text('{"flags": {"f": {"state": "ENABLED", "variants": {"a": 1}, "default": 3}}}')
    with pytest.raises(TidegateError, match="'default' is no key of a flag") as raised:
        run(app, flag.command, "set", str(file))
    assert (raised.value.code, raised.value.exit) == ("flags_invalid", 2)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(TidegateError, match="UTF-8"):
        run(app, flag.command, "set", str(file))
    with pytest.raises(TidegateError, match="UTF-8"):
        run(app, flag.command, "eval", "plain-model", "--file", str(file))
    assert json.loads(run(app, flag.command, "list", "--json").output) == {"documents": []}
    with pytest.raises(TidegateError, match="plain-model") as raised:
        run(app, flag.command, "eval", "nobody")
    assert raised.value.code == "flag_unknown"
    with pytest.raises(TidegateError) as raised:
        run(app, flag.command, "rollback", "--to", "7")
    assert raised.value.code == "flags_unknown"
