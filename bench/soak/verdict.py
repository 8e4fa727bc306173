"""Whether anything grew: pure, over samples; each finding carries its sentence."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

from bench.soak.samples import ALWAYS, Sample

WARM_UP = 0.25
"""Share of the run that is not judged: caches fill, code is run for the first time."""
MEMORY_GROWTH = 0.05
"""Share of a worker's memory that may be added from the first to the last quarter of what is
judged; as in the benchmark of the gateway."""
COUNT_GROWTH = 8
"""Open files or tasks that may be more: they follow the requests under way."""
KEYS_GROWTH = 60
"""Keys that may be more: they follow what was kept or limited lately."""


class Finding(msgspec.Struct, frozen=True):
    name: str
    value: float
    limit: float
    sentence: str

    @property
    def ok(self) -> bool:
        return self.value <= self.limit


def judge(samples: Sequence[Sample], end: Sample) -> list[Finding]:
    """``samples`` under load in order, ``end`` after it. ValueError when there are too few."""
    judged = [one for one in samples if one.at >= WARM_UP * samples[-1].at]
    if len(judged) < 8:
        raise ValueError(f"{len(judged)} samples after the warm-up are too few to judge")
    found = []
    for number in sorted(samples[0].workers):
        found += _of_worker(number, samples, judged)
    keys = _growth([float(one.valkey_keys) for one in judged])
    found.append(_finding("valkey keys", keys[1] - keys[0], KEYS_GROWTH, keys, "keys"))
    for number, worker in sorted(end.workers.items()):
        left = {name: v for name, v in worker.gauges.items() if name not in ALWAYS and v}
        words = ", ".join(f"{name} {value:g}" for name, value in sorted(left.items()))
        found.append(
            Finding(
                f"worker {number}: gauges after the load",
                float(sum(left.values())),
                0.0,
                words or "all are zero",
            )
        )
    return found


def _of_worker(number: int, samples: Sequence[Sample], judged: Sequence[Sample]) -> list[Finding]:
    name = f"worker {number}"
    pids = {one.workers[number].pid for one in samples if number in one.workers}
    missing = sum(number not in one.workers for one in samples)
    found = [
        Finding(
            f"{name}: restarts and missing reports",
            float(len(pids) - 1 + missing),
            0.0,
            f"{len(pids)} processes, {missing} samples without a report",
        )
    ]
    seen = [one.workers[number] for one in judged if number in one.workers]
    if len(seen) < 8:
        return found
    memory = _growth([one.rss / 2**20 for one in seen])
    found.append(
        _finding(
            f"{name}: memory", memory[1] / memory[0] - 1, MEMORY_GROWTH, memory, "MiB, medians"
        )
    )
    files = _growth([float(one.files) for one in seen])
    found.append(_finding(f"{name}: open files", files[1] - files[0], COUNT_GROWTH, files, "files"))
    tasks = _growth([one.gauges["tasks"] for one in seen])
    found.append(_finding(f"{name}: tasks", tasks[1] - tasks[0], COUNT_GROWTH, tasks, "tasks"))
    return found


def _growth(values: Sequence[float]) -> tuple[float, float]:
    """Medians of the first and the last quarter: one busy moment does not count."""
    quarter = max(2, len(values) // 4)
    return statistics.median(values[:quarter]), statistics.median(values[-quarter:])


def _finding(
    name: str, value: float, limit: float, ends: tuple[float, float], unit: str
) -> Finding:
    return Finding(name, value, float(limit), f"{ends[0]:.1f} to {ends[1]:.1f} {unit}")
