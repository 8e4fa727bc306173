"""``tidegate kill``, ``cap`` and ``switches``, against a gateway that serves meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from tests.gateway.conftest import ANSWER
from tests.gateway.test_bad_input import eventually
from tests.gateway.test_bad_luck import workers
from tests.gateway.test_limits import serving
from tests.gateway.test_switches import Switches, switch_release
from tidegate.base.errors import TidegateError
from tidegate.cli import cap, kill, switches
from tidegate.switches import list_workers
from tidegate.testing import ModelServer


@pytest.fixture
def app(tmp_path: Path, database_url: str, valkey_url: str) -> Iterator[Switches]:
    with ModelServer(answer=ANSWER) as server:
        release = switch_release(server.base_url, server.base_url)
        with serving(tmp_path / "app", release, database_url, valkey_url, workers=2) as process:
            (tmp_path / "app" / "tidegate.yaml").write_text("app: sample\n")

            def ready() -> bool:
                with psycopg.connect(database_url, autocommit=True) as connection:
                    found = list_workers(connection)
                return len(found) == 2 and all(one.version is not None for one in found)

            eventually(ready, timeout=20)
            yield Switches(process)


def run(app: Switches, command: Any, *words: str, code: int = 0) -> Result:
    where = app.gateway.runtime.app
    named = (where,) if command is switches.command else ("--app", where)
    result = CliRunner().invoke(command, [*words, *named])
    if isinstance(result.exception, TidegateError):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def told(app: Switches, *words: str) -> Any:
    return json.loads(run(app, switches.command, "--json", *words).output)


def test_a_kill_is_acknowledged_shown_and_lifted(app: Switches) -> None:
    said = run(app, kill.command, "route", "plain", "--reason", "wrong doses", "--json")
    outcome = json.loads(said.output)
    assert outcome["complete"] is True
    assert outcome["change"]["what"] == "kill route plain"
    names = {one["worker"]["name"] for one in outcome["acknowledged"]}
    assert names == {"gateway-1", "gateway-2"}
    assert all(one["ms"] >= 0 for one in outcome["acknowledged"])
    assert app.refused("plain") == (503, "route_killed")  # whichever worker answers
    shown = run(app, switches.command).output
    assert "killed: route plain (wrong doses)" in shown
    assert shown.count(f"runs version {outcome['change']['version']}") == 2
    (killed,) = told(app)["kills"]
    assert (killed["name"], killed["reason"]) == ("plain", "wrong doses")
    lifted = run(app, kill.command, "route", "plain", "--off").output
    assert lifted.count("in force in gateway-") == 2
    assert app.ask("plain").status_code == 200
    now = told(app, "--changes", "2")
    assert now["kills"] == []
    assert [one["what"] for one in now["changes"]] == ["lift kill route plain", "kill route plain"]


def test_caps_and_long_prompts(app: Switches) -> None:
    run(app, cap.command, "--output-tokens", "3", "--surge", "on")
    run(app, cap.command, "--route", "plain", "--prompt-tokens", "50")
    run(app, kill.command, "prompts", "--over", "9", "--route", "rescued")
    assert app.ask("plain").headers["x-tidegate-capped"] == "switch"
    shown = run(app, switches.command).output
    assert "capped: every route, answers 3 tokens, surge on" in shown
    assert "capped: plain, prompts 50 tokens" in shown
    assert "killed: prompts of more than 9 tokens, rescued" in shown
    run(app, cap.command, "--off")
    run(app, cap.command, "--route", "plain", "--off")
    run(app, kill.command, "prompts", "--route", "rescued", "--off")
    assert "nothing is switched by hand" in run(app, switches.command).output


SENSELESS = [
    (kill.command, ("route", "plian"), "switch_name_unknown"),
    (kill.command, ("model", "huge"), "switch_name_unknown"),
    (kill.command, ("tool", "serach"), "switch_name_unknown"),
    (kill.command, ("tenant", "acne"), "switch_name_unknown"),
    (kill.command, ("prompts", "--over", "5", "--route", "nowhere"), "switch_name_unknown"),
    (kill.command, ("prompts",), "tokens_not_named"),
    (kill.command, ("prompts", "--over", "5", "--off"), "tokens_not_named"),
    (kill.command, ("route", "plain", "--off"), "kill_unknown"),
    (kill.command, ("tenant", "", "--force"), "switch_name_unknown"),
    (kill.command, ("tenant", "\udcff", "--force"), "value_invalid"),
    (kill.command, ("prompts", "--over", "9" * 20), "value_invalid"),
    (cap.command, (), "cap_not_named"),
    (cap.command, ("--off", "--surge", "on"), "cap_not_named"),
    (cap.command, ("--route", "nowhere", "--surge", "on"), "switch_name_unknown"),
    (cap.command, ("--off",), "cap_unknown"),
]


def test_what_makes_no_sense_changes_nothing(app: Switches) -> None:
    before = told(app)["version"]
    for command, words, code in SENSELESS:
        with pytest.raises(TidegateError) as refusal:
            run(app, command, *words)
        assert (refusal.value.code, refusal.value.exit) == (code, 2), words
    with pytest.raises(TidegateError, match="did you mean plain"):
        run(app, kill.command, "route", "plainn")
    assert told(app)["version"] == before
    run(app, kill.command, "route", "plian", "--force")


def test_a_reason_is_shown_as_it_was_written_and_no_row_is_cut_short(app: Switches) -> None:
    reason = "[/red] see [incident 12] " + "and on " * 20
    run(app, kill.command, "route", "plain", "--reason", reason.strip())
    rows = run(app, switches.command, "--changes", "1").output.splitlines()
    assert reason.strip() in rows[-1]


def test_a_worker_that_does_not_answer_is_named_and_the_exit_code_is_1(app: Switches) -> None:
    frozen = workers(app.gateway)[0]
    frozen.suspend()
    try:
        said = run(app, kill.command, "model", "spare", "--wait", "1s", code=1)
    finally:
        frozen.resume()
    assert f"(process {frozen.pid})" in said.output.split("not reached within 1 s: gateway-")[1]
    assert said.output.count("in force in") == 1


def test_given_an_interrupted_wait_then_it_is_told_that_the_change_stays(
    app: Switches, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tidegate.cli.flip.wait_acknowledged", interrupted)
    said = run(app, kill.command, "route", "plain", code=1)
    assert "kill route plain, is made and stays" in said.output
    assert [one["name"] for one in told(app)["kills"]] == ["plain"]


def test_a_worker_that_no_notification_reaches_is_shown(app: Switches) -> None:
    with psycopg.connect(app.gateway.runtime.database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO gateway_workers (gateway, name, host, pid, version, since, listening)"
            " SELECT 'g', 'gateway-8', 'elsewhere', 1, version, now(), false FROM switches_version"
        )
        said = run(app, switches.command).output.splitlines()
        assert [line for line in said if "notifications do not reach it" in line] == [
            line for line in said if "gateway-8" in line
        ]
        found = {one["name"]: one["listening"] for one in told(app)["workers"]}
        assert found == {"gateway-1": True, "gateway-2": True, "gateway-8": False}
        connection.execute("DELETE FROM gateway_workers WHERE name = 'gateway-8'")


def test_the_workers_of_a_gateway_that_was_killed_are_not_waited_for_for_ever(
    app: Switches,
) -> None:
    """given workers that ended without a word: named while they may still live, then known dead."""
    with psycopg.connect(app.gateway.runtime.database_url, autocommit=True) as connection:
        app.gateway.stop()
        assert list_workers(connection) == ()  # those that end well take themselves off the list
        connection.execute(
            "INSERT INTO gateway_workers (gateway, name, host, pid, beat) VALUES"
            " ('g', 'gateway-9', 'elsewhere', 1, clock_timestamp() - interval '1 minute')"
        )
        said = run(app, kill.command, "route", "plain", code=1)
        assert "not waited for: gateway-9 of g on elsewhere" in said.output
        connection.execute("UPDATE gateway_workers SET beat = now() - interval '2 hours'")
        said = run(app, kill.command, "route", "plain")
        assert "in force from the next start on" in said.output
