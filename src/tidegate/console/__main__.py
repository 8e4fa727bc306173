"""``python -m tidegate.console --state DIR --host H --port P``: the operator's door."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click
import uvicorn

from tidegate.console.protocol import BoundedProtocol
from tidegate.console.run import make_app


@click.command()
@click.option(
    "--state", required=True, type=click.Path(path_type=Path), help="the app's .tidegate folder"
)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8081, show_default=True)
def main(state: Path, host: str, port: int) -> None:
    """Serve the operator's door until SIGTERM."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    uvicorn.run(
        make_app(state),
        host=host,
        port=port,
        http=BoundedProtocol,
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
    )


if __name__ == "__main__":
    main()
