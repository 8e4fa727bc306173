"""CPU time and memory of all processes of one product, read from /proc.

A product's processes are: those started with its mark in their environment, those that name its
working folder on their command line, and every descendant of these. So a daemon that left its
parent is still counted. Time of a child that ended and was waited for is in its parent's
``cutime`` and ``cstime``, which are summed too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

MARK = "TIDEGATE_BENCH_MARK"
TICK = 1.0 / os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """One line of the process table. ``cpu`` is seconds, own and of reaped children."""

    pid: int
    parent: int
    cpu: float
    command: str
    environ: bytes = b""


def parse_stat(line: str) -> tuple[int, float]:
    """Parent pid and CPU seconds from /proc/PID/stat (proc(5): fields 4 and 14 to 17)."""
    fields = line[line.rindex(")") + 2 :].split()
    return int(fields[1]), sum(int(part) for part in fields[11:15]) * TICK


def process_table() -> list[Process]:
    """Every process of the machine that may be read, this one included."""
    table = []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent, cpu = parse_stat((entry / "stat").read_text())
            command = (
                (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            )
            environ = (entry / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        table.append(Process(int(entry.name), parent, cpu, command, environ))
    return table


def members(
    table: Iterable[Process], roots: Iterable[int], mark: str, folder: str
) -> list[Process]:
    """The processes of one product, parents before children."""
    table = list(table)
    found = set(roots)
    needle = f"{MARK}={mark}".encode()
    found |= {
        p.pid for p in table if needle in p.environ.split(b"\0") or (folder and folder in p.command)
    }
    grown = True
    while grown:
        more = {p.pid for p in table if p.parent in found} - found
        found |= more
        grown = bool(more)
    return sorted(
        (p for p in table if p.pid in found and p.pid != os.getpid()), key=lambda p: p.pid
    )


def groups(processes: Iterable[Process], names: dict[str, str], rest: str) -> dict[int, str]:
    """Pid to group: the first of ``names`` (substring of the command line: group) that fits the
    process or its nearest ancestor; ``rest`` when none does."""
    by_pid = {p.pid: p for p in processes}

    def group_of(pid: int) -> str:
        seen = set()
        while pid in by_pid and pid not in seen:
            seen.add(pid)
            for needle, name in names.items():
                if needle in by_pid[pid].command:
                    return name
            pid = by_pid[pid].parent
        return rest

    return {pid: group_of(pid) for pid in by_pid}


@dataclass(frozen=True)
class Usage:
    """CPU seconds so far by group, at one moment (``at``: monotonic seconds)."""

    at: float
    by_group: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        return sum(self.by_group.values())


def used(before: Usage, after: Usage) -> dict[str, float]:
    """CPU seconds spent by each group between two moments."""
    return {
        name: after.by_group.get(name, 0.0) - before.by_group.get(name, 0.0)
        for name in sorted(before.by_group.keys() | after.by_group.keys())
    }


def usage(processes: list[Process], names: dict[str, str], rest: str, at: float) -> Usage:
    """Sum a product's processes by group."""
    group = groups(processes, names, rest)
    totals: dict[str, float] = {}
    for process in processes:
        name = group[process.pid]
        totals[name] = totals.get(name, 0.0) + process.cpu
    return Usage(at, totals)


def machine_busy(read: Callable[[], str] = (_PROC / "stat").read_text) -> float:
    """CPU seconds that the whole machine was busy since it started (user to steal but idle)."""
    fields = [int(part) for part in read().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) * TICK


def resident_bytes(pid: int) -> int:
    """Resident memory of one process in bytes (VmRSS)."""
    for line in (_PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
