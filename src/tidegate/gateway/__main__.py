"""Run the gateway of one app folder: ``python -m tidegate.gateway --state APP/.tidegate``."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings

from tidegate.gateway.server import STATE_VARIABLE


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tidegate.gateway", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="the app's .tidegate folder")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    # Workers are spawned afresh and find the folder here.
    os.environ[STATE_VARIABLE] = str(options.state.resolve())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    Granian(
        "tidegate.gateway.server:make_app",
        factory=True,
        address=options.host,
        port=options.port,
        interface=Interfaces.RSGI,
        workers=options.workers,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=10_000),
        websockets=False,
        backlog=2048,
        respawn_failed_workers=True,
        respawn_interval=0.2,
        workers_kill_timeout=30,
        log_access=False,
    ).serve()


if __name__ == "__main__":
    main()
