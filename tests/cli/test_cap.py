"""``tidegate cap --surge``: refused where there is nothing to hold, and given back to the load."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import psycopg
import pytest
from click.testing import CliRunner

from tests.gateway.releases import sample_release
from tidegate.base.errors import UsageError
from tidegate.base.runtime import Runtime, write_runtime
from tidegate.cli.cap import command
from tidegate.registry.releases import put
from tidegate.release.values import Caps, Surge
from tidegate.switches import Cap, list_changes, snapshot


@pytest.fixture
def app(tmp_path: Path, database_url: str) -> Path:
    """An app whose route ``capped`` alone has a cap under load; no worker runs."""
    (tmp_path / "tidegate.yaml").write_text("app: sample\n")
    release = sample_release("http://127.0.0.1:9/v1")
    caps = Caps(output_tokens=16, surge=Surge(output_tokens=8, above=0.8))
    capped = msgspec.structs.replace(release.routes["capped"], caps=caps)
    release = msgspec.structs.replace(release, routes={**release.routes, "capped": capped})
    state = tmp_path / ".tidegate"
    write_runtime(
        Runtime(
            app=str(tmp_path),
            state=str(state),
            pid=os.getpid(),
            release=put(state / "registry", release, lambda path: iter(())),
            database_url=database_url,
            valkey_url="redis://nowhere",
            gateway_url="http://127.0.0.1:1",
            operator_url="http://127.0.0.1:1",
            operator_token="unused",
        )
    )
    return tmp_path


def cap(app: Path, *words: str) -> tuple[Cap, ...]:
    """The caps in force after the command."""
    done = CliRunner().invoke(command, [*words, "--app", str(app)])
    if isinstance(done.exception, UsageError):
        raise done.exception
    assert done.exit_code == 0, done.output
    with psycopg.connect(url_of(app)) as connection:
        return snapshot(connection).caps


def url_of(app: Path) -> str:
    path = app / ".tidegate" / "run" / "runtime.json"
    return msgspec.json.decode(path.read_bytes(), type=Runtime).database_url


@pytest.mark.parametrize("mode", ["on", "off"])
def test_a_cap_under_load_that_is_not_there_cannot_be_switched(app: Path, mode: str) -> None:
    with pytest.raises(UsageError) as refused:
        cap(app, "--route", "plain", "--surge", mode)
    assert refused.value.code == "surge_missing"
    assert "route plain has no cap under load" in refused.value.message
    (held,) = cap(app, "--route", "capped", "--surge", mode)
    assert (held.route, held.surge) == ("capped", mode)
    assert len(cap(app, "--surge", mode)) == 2  # every route: one of them has it


def test_auto_gives_surge_back_to_the_load_and_keeps_the_other_caps(app: Path) -> None:
    cap(app, "--route", "capped", "--surge", "on", "--output-tokens", "4")
    (held,) = cap(app, "--route", "capped", "--surge", "auto")
    assert (held.surge, held.output_tokens) == (None, 4)
    with psycopg.connect(url_of(app)) as connection:
        last = list_changes(connection, 1)[0]
    assert (last.old["surge"], last.new["surge"]) == ("on", None)


def test_a_cap_that_caps_nothing_any_more_is_gone(app: Path) -> None:
    cap(app, "--route", "capped", "--surge", "on")
    assert cap(app, "--route", "capped", "--surge", "auto") == ()
