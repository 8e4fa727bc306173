"""The figures of the flips, and a short run of the bench itself."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

from bench.switches.figures import Flip, figures, percentile

ROOT = Path(__file__).resolve().parents[2]


def flip(*workers: float, unreached: int = 0, wrong: int = 0) -> Flip:
    return Flip(what="x", workers=workers, seen=1.0, unreached=unreached, wrong=wrong)


def test_the_slowest_worker_of_each_flip_counts() -> None:
    found = figures([flip(1, 9), flip(5, 3)])
    assert (found.p50, found.p99, found.max, found.passed) == (5, 9, 9, True)


def test_what_does_not_pass() -> None:
    assert not figures([]).passed
    assert not figures([flip(2000)]).passed
    assert not figures([flip(1, unreached=1)]).passed
    assert figures([flip(1, unreached=1)]).max == math.inf
    assert not figures([flip(1, wrong=1)]).passed


def test_percentiles_are_values_that_were_seen() -> None:
    assert percentile(range(1, 201), 99) == 198
    assert percentile([7], 50) == 7


def test_a_short_run_reaches_every_worker() -> None:
    command = ["-m", "bench.switches", "--flips", "6", "--workers", "2", "--rate", "10", "--json"]
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=110,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}, check=False,
    )  # fmt: skip
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["flips"], told["unreached"], told["wrong"]) == (6, 0, 0), done.stderr


def test_a_short_run_with_keys_writes_differences_only() -> None:
    """The figures are there for each kind of change; of 2,000 keys none but the changed is kept
    anew. Times are the bars' own."""
    command = ["-m", "bench.switches.keys", "--keys", "2000", "--changes", "1", "--json"]
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode in (0, 1), done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert [one["source"] for one in told["starts"]] == ["PostgreSQL", "kept files"]
    assert len(told["changes"]) == 4
    assert all(one["reach_max"] < math.inf for one in told["changes"])
    assert all(0 < one["kept_bytes"] < 5000 for one in told["changes"])
