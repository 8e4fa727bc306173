"""The soak's judgement sees growth where there is some, and a short soak passes it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.soak.samples import Sample, WorkerSample
from bench.soak.verdict import COUNT_GROWTH, KEYS_GROWTH, judge

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20
NEVER = "kinds of upstream faults that were never played"


def sample(
    at: float, *, rss: float = 50.0, files: int = 20, tasks: float = 5.0, keys: int = 100,
    pid: int = 7, **gauges: float,
) -> Sample:  # fmt: skip
    worker = WorkerSample(pid, int(rss * MIB), files, {"tasks": tasks, **gauges})
    return Sample(at, {1: worker}, keys, int(at))


def failed(samples: list[Sample], end: Sample | None = None) -> set[str]:
    return {one.name for one in judge(samples, end or sample(999)) if not one.ok}


def test_what_stays_level_passes_also_when_it_moves_up_and_down() -> None:
    wobble = [sample(n, rss=50 + n % 3, files=20 + n % 5, keys=100 + n % 20) for n in range(100)]
    assert failed(wobble) == set()


def test_growth_before_the_warm_up_is_over_does_not_count() -> None:
    assert failed([sample(n, rss=40 + min(n, 25)) for n in range(100)]) == set()


def test_each_kind_of_growth_is_found() -> None:
    assert failed([sample(n, rss=50 * (1 + n / 1000)) for n in range(100)]) == {"worker 1: memory"}
    files = [sample(n, files=20 + n * 2 * COUNT_GROWTH // 100) for n in range(100)]
    assert failed(files) == {"worker 1: open files"}
    tasks = [sample(n, tasks=5 + n * 2 * COUNT_GROWTH / 100) for n in range(100)]
    assert failed(tasks) == {"worker 1: tasks"}
    keys = [sample(n, keys=100 + n * 2 * KEYS_GROWTH // 100) for n in range(100)]
    assert failed(keys) == {"valkey keys"}


def test_a_gauge_that_does_not_return_to_zero_is_named() -> None:
    level = [sample(n) for n in range(100)]
    assert failed(level, sample(999, upstream_busy=1.0)) == {"worker 1: gauges after the load"}
    assert failed(level, sample(999, connections=4.0, upstream_idle=3.0)) == set()


def test_a_worker_that_was_started_again_or_fell_silent_is_found() -> None:
    restarted = [sample(n, pid=7 if n < 50 else 8) for n in range(100)]
    assert failed(restarted) == {"worker 1: restarts and missing reports"}
    silent = [sample(n) if n % 10 else Sample(n, {}, 100, n) for n in range(1, 100)]
    assert failed(silent) == {"worker 1: restarts and missing reports"}


def test_too_few_samples_are_no_verdict() -> None:
    with pytest.raises(ValueError, match="too few"):
        judge([sample(n) for n in range(5)], sample(9))


# In half a minute memory and kept answers have not settled; that is what the hour is for. The
# rarest fault may not come either.
SETTLES = {"worker 1: memory", "worker 2: memory", "valkey keys", NEVER}


def soaked(minutes: float, *, left: set[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Soak for ``minutes``: nothing but what is ``left`` out may be found. The answers by kind,
    and what is said of the faults that never came."""
    command = [sys.executable, "-m", "bench.soak", "--minutes", f"{minutes}", "--rate", "25"]
    done = subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    bad = [one for one in result["findings"] if not one["ok"] and one["name"] not in left]
    assert bad == [], result["answers"]
    (never,) = (one for one in result["findings"] if one["name"] == NEVER)
    return result["answers"], never


def test_seconds_of_the_whole_app_leave_nothing_behind() -> None:
    """Every feature, faults, clients that leave, switches: each request has a receipt and an
    answer that can be explained, and all gauges, places and reserved budgets return to zero."""
    counts = {f"worker {number}: {what}" for number in (1, 2) for what in ("open files", "tasks")}
    answers, _ = soaked(0.1, left=SETTLES | counts)  # too short for medians to mean anything
    assert answers["stream 200"] > 3


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_minute_of_the_whole_app_grows_nowhere() -> None:
    answers, never = soaked(1.0, left=SETTLES)
    assert answers["stream 200"] > 25
    assert never["value"] < 4, never["sentence"]
