"""Start what a run needs, wait until it listens, and stop exactly what was started."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.gateway import cpu

_PR_SET_PDEATHSIG = 1


class BenchError(Exception):
    """The benchmark cannot go on; the message says what to do."""


@dataclass
class Product:
    """The processes of one system under test or of one tool of the bench."""

    name: str
    folder: Path
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    roots: list[int] = field(default_factory=list)
    group_names: dict[str, str] = field(default_factory=dict)
    """Substring of a command line to the group it is reported under."""

    def processes(self) -> list[cpu.Process]:
        return cpu.members(cpu.process_table(), self.roots, self.mark, str(self.folder))

    def usage(self) -> cpu.Usage:
        return cpu.usage(self.processes(), self.group_names, "other", time.monotonic())


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def child(
    product: Product,
    command: list[str],
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    patience: float = 10.0,
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run ``command`` as part of ``product``; its output goes to the yielded log file.

    On leaving: SIGTERM to the child, and after ``patience`` seconds SIGKILL to every process of
    the product that is left.
    """
    log = product.folder / f"{Path(command[0]).name}-{len(product.roots)}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder or product.folder,
            env={**os.environ, **(environ or {}), cpu.MARK: product.mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - single-threaded where it is called
        )
    product.roots.append(process.pid)
    try:
        yield process, log
    finally:
        _stop(product, process, patience)


def _stop(product: Product, process: subprocess.Popen[bytes], patience: float) -> None:
    family = {p.pid: p for p in product.processes()}
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        print(f"bench: {product.name} did not stop in {patience:g} s, killing it", file=sys.stderr)
        process.kill()
    product.roots.remove(process.pid)
    if product.roots:
        return
    left = {p.pid for p in product.processes()} | {
        p.pid for p in cpu.process_table() if p.pid in family and p.command == family[p.pid].command
    }
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(2)


def wait_until(
    ready: Callable[[], bool],
    what: str,
    *,
    seconds: float,
    process: subprocess.Popen[bytes] | None = None,
    log: Path | None = None,
) -> None:
    """Poll ``ready`` until it is true. Raises BenchError with the end of the log."""
    deadline = time.monotonic() + seconds
    while True:
        if ready():
            return
        ended = process is not None and process.poll() is not None
        if ended or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-2000:] if log else ""
            why = "ended" if ended else f"was not ready within {seconds:g} s"
            raise BenchError(f"{what} {why}\n{tail}")
        time.sleep(0.05)


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
        return True
    return False
