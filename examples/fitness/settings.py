"""Where the gateway and the database are: variables first, then what ``tidegate up`` wrote."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.base.errors import RuntimeStateError
from tidegate.base.runtime import read_runtime

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Settings:
    gateway_url: str
    database_url: str = field(repr=False)
    key: str = field(repr=False)
    operator: str
    """Where spans go: the operator's door, or the folder whose run says it."""


def read_settings(env: Mapping[str, str] = os.environ, folder: Path = FOLDER) -> Settings:
    """RuntimeStateError ``not_running`` when neither the variables nor a run say it, ``no_key``
    when the app has keys of its own and the variables name none."""
    names = ("TIDEGATE_GATEWAY_URL", "DATABASE_URL", "TIDEGATE_KEY")
    gateway_url, database_url, key = (env.get(name) for name in names)
    if not (gateway_url and database_url and key):
        runtime = read_runtime(folder)
        gateway_url = gateway_url or runtime.gateway_url
        database_url = database_url or runtime.database_url
        key = key or _first_key(runtime.run / "dev.key")
    operator = env.get("TIDEGATE_OPERATOR_URL") or str(folder)
    return Settings(gateway_url, database_url, key, operator)


def _first_key(file: Path) -> str:
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        raise RuntimeStateError(
            "no_key",
            "no gateway key is given and the key of the first start is gone",
            cure='export TIDEGATE_KEY="$(tidegate keys create examples/fitness --name web)"',
        ) from None
