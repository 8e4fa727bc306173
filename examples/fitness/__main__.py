"""``python -m examples.fitness``: serve the app; ``tidegate up examples/fitness`` runs before."""

from __future__ import annotations

import argparse
import logging
import sys

import uvicorn

from examples.fitness.app import make_app
from examples.fitness.settings import read_settings
from tidegate.base.errors import TidegateError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.fitness", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    try:
        app = make_app(read_settings())
    except TidegateError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit
    print(f"fitness coach on http://{asked.host}:{asked.port} (Ctrl-C ends it)", flush=True)
    uvicorn.run(
        app, host=asked.host, port=asked.port, log_level="warning", timeout_graceful_shutdown=5
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
