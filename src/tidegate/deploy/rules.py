"""Command lines of the parts of an app, and the URLs that they are probed at."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import msgspec

from tidegate.base import ChildSpec, log_folder
from tidegate.deploy.probes import answers_ok

DRAIN = 36.0
"""Seconds the gateway has to end: 30 to finish the requests in flight, the others to write the
receipts of those that it has to cut."""
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


class Doors(msgspec.Struct, frozen=True, kw_only=True):
    """The addresses that an app listens on, and its number of workers."""

    host: str
    port: int
    operator_host: str = "127.0.0.1"
    """The operator's door stays on this machine, also where the gateway does not."""
    operator_port: int
    workers: int

    @property
    def gateway_url(self) -> str:
        return f"http://{address(self.host)}:{self.port}"

    @property
    def operator_url(self) -> str:
        return f"http://{address(self.operator_host)}:{self.operator_port}"


def address(host: str) -> str:
    """The host part of a URL by which this machine reaches a server that listens on ``host``."""
    reached = _ANY.get(host, host)
    return f"[{reached}]" if ":" in reached else reached


def part_specs(state: Path, doors: Doors) -> tuple[ChildSpec, ...]:
    """The ledger's loader, the operator's door and the gateway, in the order they start.

    They stop in the reverse order: the loader still runs while the gateway drains, and loads the
    receipts of its last requests."""
    loader = _part(state, "ledger", grace=10.0)
    console = _part(
        state,
        "console",
        "--host", doors.operator_host, "--port", str(doors.operator_port),
        url=f"{doors.operator_url}/health",
    )  # fmt: skip
    gateway = _part(
        state,
        "gateway",
        "--host", doors.host, "--port", str(doors.port), "--workers", str(doors.workers),
        url=f"{doors.gateway_url}/health",
        grace=DRAIN,
        death_signal=signal.SIGTERM,  # it drains within its own bound
    )  # fmt: skip
    return loader, console, gateway


def _part(
    state: Path,
    room: str,
    *options: str,
    url: str | None = None,
    grace: float = 5.0,
    death_signal: int = signal.SIGKILL,
) -> ChildSpec:
    return ChildSpec(
        name=room,
        argv=(sys.executable, "-P", "-m", f"tidegate.{room}", "--state", str(state), *options),
        log=log_folder(state) / f"{room}.log",
        probe=None if url is None else lambda: answers_ok(url),
        grace=grace,
        death_signal=death_signal,
    )
