"""Whatever the operator's door does, the app goes on, quickly and quietly."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider

from tests.ports import free_port
from tests.sdk.conftest import Door, eventually
from tidegate import sdk
from tidegate.base.runtime import Runtime, write_runtime
from tidegate.sdk import export, journey
from tidegate.sdk.export import OtlpExporter
from tidegate.sdk.rules import origin_of
from tidegate.sdk.settings import ExportTarget


def make_journeys(count: int) -> None:
    for number in range(count):
        with journey(f"j{number}"):
            pass


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "pause_after", lambda failures: 0.05)


def write_app(folder: Path, operator_url: str, token: str, gateway_url: str) -> None:
    write_runtime(
        Runtime(
            app=str(folder),
            state=str(folder / ".tidegate"),
            pid=os.getpid(),
            release="sha256:" + "0" * 64,
            database_url="",
            valkey_url="",
            gateway_url=gateway_url,
            operator_url=operator_url,
            operator_token=token,
        )
    )


def test_a_door_that_opens_later_gets_the_spans_and_one_warning_was_given(
    open_door: Callable[..., Door], caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    with caplog.at_level(logging.INFO):
        sdk.start(f"http://127.0.0.1:{port}", token="right", gateway_url="http://127.0.0.1:1")
        make_journeys(3)
        eventually(lambda: caplog.records)
        make_journeys(1)
        time.sleep(0.2)
        door = open_door(port)
        eventually(lambda: len(door.spans) == 4)  # although the app is idle now
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "INFO"]
    assert "is away" in caplog.messages[0]
    assert "being recorded again" in caplog.messages[1]


def test_a_wrong_token_is_one_warning(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    sdk.start(door.url, token="wrong", gateway_url="http://127.0.0.1:1")
    make_journeys(3)
    eventually(lambda: door.refused)
    eventually(lambda: door.refused > 2)
    sdk.shutdown()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "does not know the token" in caplog.text
    assert not door.spans


def test_a_door_that_hangs_does_not_slow_the_app(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    door.delay = 20.0
    sdk.start(door.url, token="right", gateway_url="http://127.0.0.1:1")
    make_journeys(10)
    eventually(lambda: door.posts)
    make_journeys(1000)
    sdk.shutdown()
    assert door.answered == 0, "neither waited for it"
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) <= 1


def test_refused_spans_are_not_sent_again() -> None:
    exporter = OtlpExporter(lambda: ExportTarget("http://127.0.0.1:9", None, None))
    exporter._post = lambda batch: (False, False, "refused")  # type: ignore[method-assign]
    with TracerProvider().get_tracer("t").start_as_current_span("x") as span:
        pass
    exporter.export([span])  # type: ignore[list-item]
    assert exporter.statistics() == (0, 0, 1)


def test_the_newest_spans_are_kept() -> None:
    exporter = OtlpExporter(lambda: ExportTarget("http://127.0.0.1:9", None, None))
    tracer = TracerProvider().get_tracer("t")
    spans = []
    for number in range(export.KEEP + 10):
        span = tracer.start_span(f"s{number}")
        span.end()
        spans.append(span)
    exporter._post = lambda batch: (False, True, "away")  # type: ignore[method-assign]
    exporter.export(spans)  # type: ignore[arg-type]
    assert exporter.statistics() == (0, export.KEEP, 10)
    got: list[str] = []

    def take(batch):  # type: ignore[no-untyped-def]
        got.extend(span.name for span in batch)
        return True, False, ""

    exporter._post = take  # type: ignore[method-assign]
    exporter.force_flush()
    assert got == [f"s{number}" for number in range(10, export.KEEP + 10)]
    assert exporter.statistics() == (export.KEEP, 0, 10)


def test_shutdown_sends_what_waits(door: Door) -> None:
    sdk.start(door.url, token="right", gateway_url="http://127.0.0.1:1")
    make_journeys(700)
    sdk.shutdown()
    assert len(door.spans) == 700


def test_a_restart_of_tidegate_up_on_another_port_needs_no_restart_of_the_app(
    tmp_path: Path, open_door: Callable[..., Door], caplog: pytest.LogCaptureFixture
) -> None:
    sdk.start(tmp_path)  # nothing runs yet
    make_journeys(1)
    eventually(lambda: caplog.records)
    assert "nothing runs for the app" in caplog.text
    assert sdk.trace_headers("http://127.0.0.1:4444/v1") == {}

    first = open_door()
    write_app(tmp_path, first.url, "right", "http://127.0.0.1:4444")
    eventually(lambda: len(first.spans) == 1)
    with journey("now"):
        assert sdk.trace_headers("http://localhost:4444/v1")
    eventually(lambda: len(first.spans) == 2)

    first.token = "changed"  # the first door does not know us any more
    second = open_door()
    write_app(tmp_path, second.url, "right", "http://127.0.0.1:5555")
    make_journeys(1)
    eventually(lambda: len(second.spans) == 1)
    with journey("now"):
        assert sdk.trace_headers("http://localhost:5555/v1")
        assert not sdk.trace_headers("http://localhost:4444/v1")


def test_where_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tidegate.sdk.settings import Sources

    write_app(tmp_path, "http://127.0.0.1:1", "of-the-file", "http://127.0.0.1:2")
    gateway, other = origin_of("http://127.0.0.1:2"), origin_of("http://gw.example")
    nothing = Sources(None, None, None)
    folder = Sources(str(tmp_path), None, None)
    assert folder.resolve({}) == ("http://127.0.0.1:1", "of-the-file", gateway)
    file = Sources(str(tmp_path / "tidegate.yaml"), None, None)
    (tmp_path / "tidegate.yaml").touch()
    assert file.resolve({}) == folder.resolve({})
    assert folder.resolve({"TIDEGATE_GATEWAY_URL": "http://gw.example"}).gateway == other
    env = {"TIDEGATE_OPERATOR_URL": "http://op:1/", "TIDEGATE_OPERATOR_TOKEN": "t"}
    assert nothing.resolve(env) == ("http://op:1", "t", None)
    assert Sources("http://x:2", "u", "http://gw.example").resolve(env) == (
        "http://x:2",
        "u",
        other,
    )
    monkeypatch.chdir(tmp_path)
    assert nothing.resolve({}).token == "of-the-file"


@pytest.mark.parametrize("what", ["nothing", "a folder in its place", "not JSON", "no address"])
def test_start_raises_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str) -> None:
    file = tmp_path / ".tidegate" / "run" / "runtime.json"
    file.parent.mkdir(parents=True)
    if what == "a folder in its place":
        file.mkdir()
    elif what == "not JSON":
        file.write_text("{")
    sdk.start("http://host:port" if what == "no address" else tmp_path)
    with journey("goes-on"):
        pass
    eventually(lambda: "journeys are not being recorded" in caplog.text)
    sdk.shutdown()
    assert len(caplog.records) == 1


APP_WITH_PROVIDER = """
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.resources import Resource
mine = TracerProvider(resource=Resource.create({"service.name": "mine"}))
trace.set_tracer_provider(mine)
from tidegate import sdk
sdk.start(sys.argv[1], token="right", gateway_url=sys.argv[1])
assert trace.get_tracer_provider() is mine
with mine.get_tracer("app").start_as_current_span("request"), sdk.journey("in-app"):
    pass
"""


def test_an_app_s_own_provider_is_used_and_the_end_of_the_process_flushes(door: Door) -> None:
    subprocess.run([sys.executable, "-c", APP_WITH_PROVIDER, door.url], check=True, timeout=60)
    assert {span.name for span in door.spans} == {"request", "in-app"}
    assert door.one("in-app").parent_span_id == door.one("request").span_id
    assert door.services == {"mine"}


APP_WITHOUT_PROVIDER = """
import sys
from tidegate import sdk
sdk.start(sys.argv[1], service="shop", token="right", gateway_url=sys.argv[1])
with sdk.journey("alone"):
    pass
"""


def test_an_app_without_a_provider_gets_one_with_its_service_s_name(door: Door) -> None:
    subprocess.run([sys.executable, "-c", APP_WITHOUT_PROVIDER, door.url], check=True, timeout=60)
    assert door.one("alone")
    assert door.services == {"shop"}


FOREIGN_PROVIDER = """
import logging, sys
from opentelemetry import trace
logging.basicConfig(level="WARNING", stream=sys.stdout)
trace.set_tracer_provider(trace.NoOpTracerProvider())
from tidegate import sdk
sdk.start("http://127.0.0.1:9", gateway_url="http://127.0.0.1:9")
with sdk.journey("x"), sdk.stage("y"):
    print("went on")
sdk.shutdown()
"""


def test_a_foreign_provider_is_a_warning() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FOREIGN_PROVIDER], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "not an OpenTelemetry SDK provider" in done.stdout
    assert "went on" in done.stdout


def test_naming_journeys_is_light_to_import() -> None:
    heavy = "opentelemetry.sdk, opentelemetry.proto, google, psutil, openai, httpx"
    code = (
        f"import sys, tidegate.sdk; print([m for m in '{heavy}'.split(', ') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"
