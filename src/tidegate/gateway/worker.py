"""One gateway worker: ``python -m tidegate.gateway.worker STATE FD DRAIN_SECONDS PULSE``."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path

import uvloop

from tidegate.base import TidegateError
from tidegate.gateway.boot import assemble
from tidegate.gateway.server import GatewayWorker
from tidegate.gateway.wire.http_server import HttpConnection, HttpServer

log = logging.getLogger("tidegate.gateway")

OPEN_FILES = 65_536


async def serve(state: Path, door: socket.socket, drain_seconds: float, alive: Path) -> None:
    """Serve until SIGTERM, then drain: what runs is finished, nothing new is taken.

    The file ``alive`` is touched once a second as long as the loop turns.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    parts = assemble(state, os.environ)
    gateway = GatewayWorker(parts, alive)
    await gateway.start()
    server = HttpServer(gateway.handle, parts.state.max_body_bytes, parts.state.max_connections)
    gateway.server = server
    parts.state.queue.crowd = server.load
    listener = await loop.create_server(lambda: HttpConnection(server), sock=door, backlog=2048)
    # What was made up to here lives as long as the process: the collector need not walk it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)  # requests make few cycles: looking seldom is enough
    log.info("worker %d serves %s", os.getpid(), parts.state.digest)
    gateway.pulse()
    await stop.wait()
    listener.close()
    await server.drain(drain_seconds)
    await gateway.stop()


def allow_connections() -> None:
    """Take as many open files as this user may have: each running request needs two, and the
    usual soft limit of 1024 is for programs that call select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main(argv: list[str]) -> None:
    allow_connections()
    state, handle, drain_seconds, alive = argv
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    door = socket.socket(fileno=int(handle))
    try:
        uvloop.run(serve(Path(state), door, float(drain_seconds), Path(alive)))
    except TidegateError as error:
        log.error("%s", error)
        sys.exit(error.exit)


if __name__ == "__main__":
    main(sys.argv[1:])
