"""The contract of an engine: a function from a launch to the command of a child process.

The child must listen on ``127.0.0.1:port``, refuse requests without the bearer key in the
environment variable ``KEY_VARIABLE``, name the model in ``GET /v1/models``, and hold no state that
a SIGKILL could spoil.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from tidegate.release import Model, PoolSettings

KEY_VARIABLE = "TIDEGATE_POOL_KEY"
"""The child's bearer key. Never on its command line, which every user of the machine can read."""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is given: the model to serve, its files and its port."""

    model: Model
    files: dict[str, Path]
    """Role of a file (``weights``, ``tokenizer``) to where it lies."""
    port: int

    @property
    def settings(self) -> PoolSettings:
        return self.model.pool or PoolSettings()


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """``argv`` of the child and what is added to its environment (the key is added later)."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = {}
    ready_within: float = 120.0
    """Seconds that loading may take."""


class Engine(Protocol):
    """Registered in the entry-point group ``tidegate.engines`` as ``<provider>.<kind>``."""

    def __call__(self, launch: Launch) -> Command: ...
