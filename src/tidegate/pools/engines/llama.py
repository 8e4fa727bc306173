"""Chat models in GGUF, on llama.cpp."""

from __future__ import annotations

import sys

from tidegate.pools.engines import need_file
from tidegate.pools.ports import Command, Launch


def command(launch: Launch) -> Command:
    """``tidegate.pools.llama_server`` on the model's ``weights``."""
    settings = launch.settings
    weights = need_file(launch.model, launch.files, "weights")
    options = {
        "--weights": str(weights),
        "--name": launch.model.upstream,
        "--port": str(launch.port),
        "--context": str(settings.context),
        "--slots": str(settings.slots),
        "--threads": str(settings.threads),
    }
    words = (word for pair in options.items() for word in pair)
    return Command(argv=(sys.executable, "-P", "-m", "tidegate.pools.llama_server", *words))
