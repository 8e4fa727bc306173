"""The table of engines: ``<provider>.<kind>`` to an entry point, built-in or of a plug-in."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from tidegate.base import PoolError
from tidegate.pools.ports import Engine
from tidegate.release import Model

GROUP = "tidegate.engines"

BUILT_IN = {
    "local.chat": "tidegate.pools.engines.llama:command",
    "local.embeddings": "tidegate.pools.engines.minilm:command",
}


def engine_table() -> Mapping[str, EntryPoint]:
    """Every engine of this installation by name. A plug-in cannot replace a built-in one."""
    built_in = {name: EntryPoint(name, value, GROUP) for name, value in BUILT_IN.items()}
    return {entry.name: entry for entry in entry_points(group=GROUP)} | built_in


def find_engine(model: Model) -> Engine:
    """The engine that serves ``model``; PoolError ``engine_unknown`` when there is none."""
    name = f"{model.provider}.{model.kind}"
    table = engine_table()
    if name not in table:
        raise PoolError(
            "engine_unknown",
            f"model {model.name}: no engine {name!r}; there are {', '.join(sorted(table))}",
            cure=f"install a package with an entry point {name!r} in the group {GROUP!r}, "
            "or set provider: local",
        )
    engine: Engine = table[name].load()
    return engine


def need_file(model: Model, files: Mapping[str, Path], role: str) -> Path:
    """The file of ``role``; PoolError ``pool_file_missing`` when the model does not pin one."""
    path = files.get(role)
    if path is None:
        raise PoolError(
            "pool_file_missing",
            f"model {model.name} has no artifact {role!r}, which its engine needs",
            cure=f"add artifacts.{role} to models.{model.name} in tidegate.yaml",
        )
    return path
