"""The parsed modules of the package, read once for all rules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Module:
    """One file. ``room`` is the first folder below the package, empty for files beside them."""

    path: str
    """Below the package, with slashes: ``gateway/path.py``."""
    room: str
    name: str
    """Dotted, with the package: ``tidegate.gateway.path``."""
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)


@dataclass(frozen=True)
class Source:
    """All modules of one package folder, such as ``src/tidegate``."""

    folder: Path
    root: Path = ROOT
    """Of the repository that the folder is in."""

    @property
    def package(self) -> str:
        return self.folder.name

    @cached_property
    def modules(self) -> tuple[Module, ...]:
        return tuple(self._read())

    @cached_property
    def rooms(self) -> frozenset[str]:
        return frozenset(module.room for module in self.modules if module.room)

    def face(self, room: str) -> Module | None:
        return next((one for one in self.modules if one.path == f"{room}/__init__.py"), None)

    def has_module(self, name: str) -> bool:
        return any(module.name == name for module in self.modules)

    def _read(self) -> Iterator[Module]:
        for path in sorted(self.folder.rglob("*.py")):
            below = path.relative_to(self.folder)
            parts = [self.package, *below.with_suffix("").parts]
            if parts[-1] == "__init__":
                parts.pop()
            room = below.parts[0] if len(below.parts) > 1 else ""
            yield Module(below.as_posix(), room, ".".join(parts), path.read_text(encoding="utf-8"))
