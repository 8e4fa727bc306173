"""Sentence embeddings on ONNX: encoders of the MiniLM family with mean pooling."""

from __future__ import annotations

import sys

from tidegate.pools.engines import need_file
from tidegate.pools.ports import Command, Launch


def command(launch: Launch) -> Command:
    """``tidegate.pools.embed_server`` on the model's ``weights`` and ``tokenizer``."""
    options = {
        "--weights": str(need_file(launch.model, launch.files, "weights")),
        "--tokenizer": str(need_file(launch.model, launch.files, "tokenizer")),
        "--name": launch.model.upstream,
        "--port": str(launch.port),
        "--threads": str(launch.settings.threads),
    }
    words = (word for pair in options.items() for word in pair)
    return Command(argv=(sys.executable, "-P", "-m", "tidegate.pools.embed_server", *words))
