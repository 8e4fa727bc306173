"""What a run makes of its rounds, and how it is shown."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import jinja2
import jsonschema
import pytest
import yaml
from click.testing import CliRunner
from rich.console import Console

from bench.gateway import load, nginx, report, tidegate
from bench.gateway.__main__ import main
from bench.gateway.children import BenchError
from bench.gateway.door import COUNTER, INPUTS, SYSTEM, openai_door
from bench.gateway.figures import bars, warnings
from bench.gateway.run import add_to_direct, worst_growth
from bench.gateway.systems import Upstreams
from tidegate.cli.build import build_app


def test_wrks_line_is_read_and_its_absence_is_told() -> None:
    output = (
        "Running 2s test\n"
        'figures {"requests":100,"us":2000000,"errors":1,"timeouts":2,'
        '"p50_us":1500,"p99_us":9000}\n'
    )
    seen = load.parse(output)
    assert (seen.per_second, seen.errors, seen.p50_ms, seen.p99_ms) == (50.0, 3, 1.5, 9.0)
    with pytest.raises(BenchError, match="no figures"):
        load.parse("Running 2s test\n")


def test_no_two_runs_of_load_share_a_tag() -> None:
    first, second = load.tags(1_790_000_000), load.tags(1_790_000_001)
    taken = list(itertools.islice(first, 1000)) + list(itertools.islice(second, 1000))
    assert len(set(taken)) == 2000
    assert all(0 <= tag < 10**10 for tag in taken)


def _stream(first: float, chunk: float, held: int) -> dict[str, object]:
    return {
        "streams": 10,
        "chunks": 110,
        "held_back": held,
        "first_token_ms": {"p50": first, "p95": first * 2},
        "chunk_ms": {"p50": chunk, "p99": chunk * 3},
    }


def test_added_is_against_the_median_of_the_direct_way_of_the_same_round() -> None:
    of_round = {
        "direct": {"stream": _stream(0.2, 0.1, 0)},
        "nginx": {"stream": _stream(0.5, 0.25, 5)},
        "plain": {},
    }
    add_to_direct(of_round)
    seen = of_round["nginx"]["stream"]
    assert seen["added_first_token_ms"] == {"p50": pytest.approx(0.3), "p95": pytest.approx(0.8)}
    assert seen["added_chunk_ms"] == {"p50": pytest.approx(0.15), "p99": pytest.approx(0.65)}
    assert seen["held_back_share"] == 0.05  # of the 100 chunks that have a successor
    assert of_round["direct"]["stream"]["added_first_token_ms"]["p50"] == 0.0


def test_growth_is_of_the_worker_that_grew_most_and_lived_through_both_marks() -> None:
    first = {"resident_bytes": {"1": 100, "2": 100, "3": 100}}
    last = {"resident_bytes": {"1": 101, "2": 104, "4": 900}}
    assert worst_growth(first, last) == pytest.approx(0.04)
    assert worst_growth(first, {"resident_bytes": {"9": 1}}) is None


def test_the_app_asks_the_upstream_what_the_peers_ask(tmp_path: Path) -> None:
    app = tmp_path / "app"
    tidegate.write_app(app, Upstreams(chat=1234, stream=1235), guard=True)
    release = build_app(app).release
    route = release.routes["plan"]
    assert route.cache_ttl == 3600
    assert route.output is not None
    assert route.store_content
    assert release.gateway.keys == "required"
    assert release.models["chat"].base_url == "http://127.0.0.1:1234/v1"
    assert release.routes["talk"].output is None
    body = json.loads(openai_door(1, "/", "m").body)
    assert body["messages"][0]["content"] == SYSTEM
    assert jinja2.Template(release.prompts["plan"].text).render(INPUTS) == SYSTEM
    assert body["messages"][1]["content"].count(COUNTER) == 1


def test_without_the_guard_the_route_has_no_schema(tmp_path: Path) -> None:
    tidegate.write_app(tmp_path / "app", Upstreams(1, 2), guard=False)
    spec = yaml.safe_load((tmp_path / "app/tidegate.yaml").read_text())
    assert "output" not in spec["routes"]["plan"]


def test_the_canned_answer_meets_the_schema() -> None:
    jsonschema.validate(nginx.PLAN, tidegate._SCHEMA)
    told = json.loads(nginx.ANSWER["choices"][0]["message"]["content"])  # type: ignore[index]
    assert told == nginx.PLAN


def _result() -> dict[str, object]:
    chat = {"cpu_us": 100.0, "per_second": 4000.0, "p50_ms": 4.0, "p99_ms": 9.0}
    streamed = {
        "added_first_token_ms": {"p50": 0.4, "p95": 0.9},
        "added_chunk_ms": {"p50": 0.1, "p99": 0.3},
        "held_back_share": 0.0,
        "cpu_us": 3000.0,
    }
    systems = {
        "nginx": {"version": "1", "miss": chat, "stream": streamed},
        "tensorzero": {"version": "2", "miss": {**chat, "cpu_us": 220.0}, "stream": streamed},
        "tidegate": {
            "version": "3",
            "idle_cores": 0.01,
            "miss": {**chat, "cpu_us_by_group": {"gateway": 90.0, "loader": 10.0}},
            "hit": {**chat, "cpu_us": 50.0},
            "stream": streamed,
        },
    }
    memory = {
        "marks": [
            {"requests": 0, "resident_bytes": {"7": 50 << 20}},
            {"requests": 200_123, "resident_bytes": {"7": 51 << 20, "8": 49 << 20}},
        ],
        "growth": 0.02,
    }
    return {
        "date": "2026-11-23T19:00:00+00:00",
        "machine": {
            "cores": 2,
            "processor": "P",
            "system": "Linux 6",
            "python": "3.11.7",
            "busy_cores_before": 0.1,
        },
        "settings": {
            "rounds": 3,
            "seconds": 4.0,
            "connections": 16,
            "stream_connections": 4,
            "workers": 1,
        },
        "systems": systems,
        "memory": memory,
        "others_cores": 0.2,
        "warnings": warnings({}, 0.2),
        "bars": [bar.to_json() for bar in bars(systems, memory)],
    }


def test_the_summary_names_date_figures_and_verdicts(tmp_path: Path) -> None:
    kept = tmp_path / "result.json"
    kept.write_text(json.dumps(_result()))
    shown = CliRunner().invoke(main, ["--summary", str(kept)])
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith("### 2026-11-23\n")
    assert "| Tidegate, miss | 3 | 100 | 90 | 4,000 | 4 | 9 |" in shown.output
    assert "| TensorZero | 2 | 220 | - |" in shown.output
    assert "gateway 90, loader 10" in shown.output
    assert "| 200,123 | 51.0 |" in shown.output
    assert "0.455 x | at most 1 | reached |" in shown.output
    assert "Beware: the machine was not quiet: 0.20 cores" in shown.output
    assert "not measured" in shown.output  # LiteLLM was not in this run


def test_the_table_shows_what_was_measured() -> None:
    console = Console(record=True, width=160, file=io.StringIO())
    report.show(_result(), console)
    text = console.export_text()
    for words in ("TensorZero", "Tidegate, hit", "held back", "What it must reach", "reached"):
        assert words in text
    assert "LiteLLM's CPU" in text


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "-"), (1234.5, "1,234"), (12.345, "12.3"), (0.0004, "0.000")]
)
def test_numbers_have_three_digits(value: float | None, shown: str) -> None:
    assert report.number(value) == shown


def test_an_unknown_system_is_a_usage_error() -> None:
    shown = CliRunner().invoke(main, ["--only", "nginx,envoy"])
    assert shown.exit_code == 2
    assert "envoy" in shown.output
