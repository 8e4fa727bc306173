"""What workers say of themselves is read while it is fresh, and never in halves."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tidegate.console.metrics import render_workers
from tidegate.ledger.gauges import WorkerGauges, gauges_path, read_gauges, write_gauges


def report(pid: int, *, age: float = 0.0) -> WorkerGauges:
    return WorkerGauges(
        pid=pid, at=time.time() - age, release="sha256:0", gauges={"running": 2.0, "tasks": 5.0}
    )


def test_the_fresh_reports_are_read_in_the_order_of_the_workers(tmp_path: Path) -> None:
    for number, (pid, age) in enumerate([(11, 0.0), (12, 60.0), (13, 1.0)], 1):
        write_gauges(gauges_path(tmp_path / f"gateway-{number}.alive"), report(pid, age=age))
    assert {n: one.pid for n, one in read_gauges(tmp_path).items()} == {1: 11, 3: 13}


@pytest.mark.parametrize("junk", [b"", b"{", b'{"pid": "x"}', b"\xff\xfe"])
def test_a_report_of_another_version_is_passed_over(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "gateway-1.json").write_bytes(junk)
    write_gauges(tmp_path / "gateway-2.json", report(7))
    assert {n: one.pid for n, one in read_gauges(tmp_path).items()} == {2: 7}


def test_metrics_show_each_worker() -> None:
    lines = list(render_workers({1: report(11), 2: report(12)}))
    assert 'tidegate_worker{worker="2",kind="running"} 2' in lines
