"""Process accounting: every process of a product once, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.gateway import cpu
from bench.gateway.children import BenchError, Product, child, wait_until
from bench.gateway.cpu import Process

_BURN = "import time; e=time.process_time()+0.4\nwhile time.process_time()<e: pass"


def test_stat_is_read_past_a_name_with_spaces_and_brackets() -> None:
    line = "7 (a ) b) S 3 7 7 0 -1 4194304 1 2 3 4 100 50 30 20 20 0 1 0 5 6 7"
    parent, seconds = cpu.parse_stat(line)
    assert parent == 3
    assert seconds == pytest.approx(200 * cpu.TICK)


def test_members_are_the_tree_the_marked_and_the_named_with_their_children() -> None:
    mark = f"{cpu.MARK}=m".encode()
    table = [
        Process(1, 0, 1.0, "init"),
        Process(10, 1, 1.0, "server"),
        Process(11, 10, 1.0, "worker"),
        Process(20, 1, 1.0, "daemon", b"A=1\0" + mark),
        Process(21, 20, 1.0, "daemon child"),
        Process(30, 1, 1.0, "postgres -D /run/app/.tidegate/pg"),
        Process(31, 30, 1.0, "postgres: writer"),
        Process(40, 1, 1.0, "stranger", mark + b"x"),
        Process(41, 40, 1.0, "stranger's child"),
    ]
    found = cpu.members(table, [10], "m", "/run/app")
    assert [p.pid for p in found] == [10, 11, 20, 21, 30, 31]


def test_a_group_is_that_of_the_nearest_named_ancestor() -> None:
    processes = [
        Process(1, 0, 1.0, "tidegate up app"),
        Process(2, 1, 2.0, "python -m tidegate.gateway"),
        Process(3, 2, 4.0, "python -c spawn_main"),
        Process(4, 1, 8.0, "bin/postgres -D x"),
        Process(5, 4, 16.0, "postgres: writer"),
        Process(6, 0, 32.0, "else"),
    ]
    names = {"tidegate.gateway": "gateway", "postgres": "postgresql", "tidegate up": "up"}
    seen = cpu.usage(processes, names, "other", 0.0)
    assert seen.by_group == {"up": 1.0, "gateway": 6.0, "postgresql": 24.0, "other": 32.0}
    assert seen.total == 63.0


def test_use_counts_groups_that_came_or_went() -> None:
    before, after = cpu.Usage(0.0, {"a": 1.0, "b": 5.0}), cpu.Usage(1.0, {"a": 3.0, "c": 2.0})
    assert cpu.used(before, after) == {"a": 2.0, "b": -5.0, "c": 2.0}


def test_time_of_a_child_that_ended_is_counted_with_its_parent(tmp_path: Path) -> None:
    product = Product("burner", tmp_path)
    script = (
        "import subprocess,sys,time\n"
        f"subprocess.run([sys.executable,'-c',{_BURN!r}])\n"
        "print('done',flush=True)\ntime.sleep(60)"
    )
    with child(product, [sys.executable, "-c", script]) as (process, log):
        wait_until(
            lambda: "done" in log.read_text(), "burner", seconds=30, process=process, log=log
        )
        assert product.usage().total >= 0.38


def test_leaving_stops_the_child_and_what_it_left_behind(tmp_path: Path) -> None:
    product = Product("daemon", tmp_path)
    script = (
        "import subprocess,sys,time\n"
        "p=subprocess.Popen([sys.executable,'-c','import time; time.sleep(60)'],"
        "start_new_session=True)\n"
        "print('pid',p.pid,flush=True)\ntime.sleep(60)"
    )
    with child(product, [sys.executable, "-c", script]) as (process, log):
        wait_until(lambda: "\n" in log.read_text(), "daemon", seconds=20, process=process, log=log)
        left = int(log.read_text().split()[1])
        assert left in {p.pid for p in product.processes()}
    _gone(left)
    assert process.poll() is not None


def _gone(pid: int) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":  # nobody waits for an orphan's end here but init
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} still runs")


def test_a_program_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    product = Product("broken", tmp_path)
    command = [sys.executable, "-c", "print('no such thing'); raise SystemExit(3)"]
    with (
        pytest.raises(BenchError, match="no such thing"),
        child(product, command) as (process, log),
    ):
        wait_until(lambda: False, "broken", seconds=20, process=process, log=log)


def test_busy_leaves_out_idle_and_waiting() -> None:
    assert cpu.machine_busy(lambda: "cpu  100 20 30 9000 500 6 7 8 0 0\ncpu0 ...") == pytest.approx(
        171 * cpu.TICK
    )


def test_resident_memory_grows_with_what_a_process_holds() -> None:
    script = "import sys; x=bytearray(64<<20); print(flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert 64 << 20 < cpu.resident_bytes(process.pid) < 160 << 20
    finally:
        process.communicate()
    assert cpu.resident_bytes(os.getpid()) > 0
