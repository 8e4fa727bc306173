"""``python -m tidegate.ledger --state DIR``: the loader as a process of its own."""

from __future__ import annotations

import gc
import logging
import signal
import sys
import threading
from pathlib import Path

import click

from tidegate.base import LockHeld, file_lock
from tidegate.ledger.run import Loop


@click.command()
@click.option(
    "--state", required=True, type=click.Path(path_type=Path), help="the app's .tidegate folder"
)
def main(state: Path) -> None:
    """Load spooled receipts and spans into PostgreSQL until SIGTERM."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    gc.set_threshold(200_000, 50, 50)  # a batch of receipts is no garbage, and holds no cycles
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        with file_lock(state / "run" / "ledger.lock"):
            Loop(state, stop).run()
    except LockHeld as held:
        raise click.ClickException(
            f"process {held.pid} already loads the spool of {state}"
        ) from None


if __name__ == "__main__":
    main()
