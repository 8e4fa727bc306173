"""Run the gateway of one app folder: ``python -m tidegate.gateway --state APP/.tidegate``.

This process holds the listening socket and keeps its workers running; it serves nothing itself.
A worker that dies is started again on the same socket, so connections that wait are not lost.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
import sys
import time
from pathlib import Path

from tidegate.base import ChildSpec, RuntimeStateError, Supervisor, TidegateError, log_folder
from tidegate.ledger import gauges_path

log = logging.getLogger("tidegate.gateway")

BACKLOG = 2048
DRAIN_SECONDS = 30.0
PULSE_SECONDS = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tidegate.gateway", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="the app's .tidegate folder")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--drain",
        type=float,
        default=DRAIN_SECONDS,
        help="seconds that running requests get to end when the gateway is stopped",
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        with listen(options.host, options.port) as door:
            asyncio.run(run(door, options.state.resolve(), options.workers, options.drain))
    except TidegateError as error:
        log.error("%s", error)
        sys.exit(error.exit)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket that workers inherit. RuntimeStateError ``port_taken`` names the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    door = socket.socket(family, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((host, port))
    except OSError as error:
        door.close()
        raise RuntimeStateError(
            "port_taken",
            f"the gateway cannot listen on {host} port {port}: {error.strerror}",
            cure="stop what uses the port, or choose another with --port",
        ) from None
    door.listen(BACKLOG)
    door.setblocking(False)
    return door


async def run(door: socket.socket, state: Path, workers: int, drain: float) -> None:
    """Keep ``workers`` processes serving until SIGTERM or SIGINT; then drain them all at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Supervisor() as supervisor:
        children = [supervisor.add(worker(door, state, n + 1, drain)) for n in range(workers)]
        started = asyncio.gather(*(child.ready() for child in children))
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait((started, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            await started  # raises what kept a worker from serving: nothing here will mend that
            await stopped
        started.cancel()
        await asyncio.gather(*(child.stop() for child in children))


def worker(door: socket.socket, state: Path, number: int, drain: float) -> ChildSpec:
    """A worker is ready when its pulse is there, and hangs when the pulse stops."""
    alive = state / "run" / f"gateway-{number}.alive"
    return ChildSpec(
        name=f"gateway-{number}",
        argv=(
            sys.executable,
            "-P",
            "-m",
            "tidegate.gateway.worker",
            str(state),
            str(door.fileno()),
            str(drain),
            str(alive),
        ),
        probe=lambda: beats(alive),
        prepare=lambda: forget(alive),
        log=log_folder(state) / f"gateway-{number}.log",
        grace=drain + 5.0,  # what is cut at the end still writes its receipt
        pass_fds=(door.fileno(),),
    )


def forget(alive: Path) -> None:
    """Remove the pulse and gauges that the worker's predecessor left."""
    alive.unlink(missing_ok=True)
    gauges_path(alive).unlink(missing_ok=True)


def beats(alive: Path) -> bool:
    """Whether the pulse is younger than PULSE_SECONDS."""
    try:
        return time.time() - alive.stat().st_mtime < PULSE_SECONDS
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    main()
