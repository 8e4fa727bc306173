"""Rooms meet at their faces: a room imports ``from tidegate.ROOM import name``, nothing deeper.

A face is what a room's ``__init__.py`` names in ``__all__``. What stands there may be used by other
rooms; all else of a room may be renamed without looking outside. Names whose modules are costly to
load are loaded when they are first asked for (``tidegate.base.lazy``), so that a face costs no
more at start than its light half.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from house.source import Module, Source

REASONS: dict[tuple[str, str], str] = {}
"""(importing module, imported module): why it does not go through the face."""


@dataclass(frozen=True)
class Crossing:
    """One name that a module imports from another room."""

    module: Module
    line: int
    room: str
    target: str
    """The dotted module it is imported from."""
    name: str


def problems(source: Source, reasons: Mapping[tuple[str, str], str] | None = None) -> list[str]:
    """Rooms without a face, names that a face does not export, imports that pass it by."""
    reasons = REASONS if reasons is None else reasons
    found: list[str] = []
    faces = {room: _exported(source.face(room)) for room in sorted(source.rooms)}
    used: set[tuple[str, str]] = set()
    for crossing in crossings(source):
        reason = (crossing.module.name, crossing.target)
        face = faces[crossing.room]
        where = f"{crossing.module.path}:{crossing.line}"
        if reason in reasons:
            used.add(reason)
        elif crossing.target != f"{source.package}.{crossing.room}":
            found.append(
                f"{where}: {crossing.target} is inside another room: write "
                f"from {source.package}.{crossing.room} import {crossing.name}"
            )
        elif face is not None and crossing.name not in face:
            found.append(
                f"{where}: {crossing.name} is not in __all__ of "
                f"{source.package}.{crossing.room}: export it there, or do without it"
            )
    found += [
        f"{room}/__init__.py has no __all__: name there what other rooms may import"
        for room, face in faces.items()
        if face is None
    ]
    found += [
        f"{importer} no longer imports {target}: take the line out of REASONS in "
        "scripts/house/faces.py"
        for importer, target in sorted(reasons.keys() - used)
    ]
    return found


def crossings(source: Source) -> Iterator[Crossing]:
    """Every name that a module imports from another room, function-level imports included."""
    for module in source.modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                parts = node.module.split(".")
                if parts[0] != source.package:
                    continue
                for alias in node.names:
                    # ``from tidegate.spec import load`` may name a module: that is a deep import
                    # only where the face does not export the name.
                    if len(parts) == 1:
                        room, target = alias.name, f"{source.package}.{alias.name}"
                        name = "*"
                    else:
                        room, target, name = parts[1], node.module, alias.name
                    if room in source.rooms and room != module.room and name != "*":
                        yield Crossing(module, node.lineno, room, target, name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    parts = alias.name.split(".")
                    if parts[0] == source.package and len(parts) > 2 and parts[1] != module.room:
                        yield Crossing(module, node.lineno, parts[1], alias.name, parts[-1])


def _exported(face: Module | None) -> frozenset[str] | None:
    """The names in ``__all__``; None where a room has none."""
    if face is None:
        return None
    for node in face.tree.body:
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        else:
            continue
        if node.value and any(isinstance(one, ast.Name) and one.id == "__all__" for one in targets):
            return frozenset(ast.literal_eval(node.value))
    return None


def lazy_problems(source: Source) -> list[str]:
    """Faces whose lazy names differ from what the type checker sees, or can be shadowed."""
    found = []
    for room in sorted(source.rooms):
        face = source.face(room)
        if face is None:
            continue
        seen, loaded, bound = _bindings(face, source.package)
        for name in sorted(seen ^ loaded):
            where = "only under TYPE_CHECKING" if name in seen else "only for lazy()"
            found.append(f"{face.path}: {name} is named {where}: name it in both places")
        for name in sorted(loaded):
            if source.has_module(f"{source.package}.{room}.{name}"):
                found.append(
                    f"{face.path}: {name} is loaded lazily and is also a module of the room, which "
                    "would take its place: import it eagerly, or rename one of them"
                )
        for name in sorted((_exported(face) or frozenset()) - seen - loaded - bound):
            if not source.has_module(f"{source.package}.{room}.{name}"):
                found.append(f"{face.path}: __all__ names {name}, which is not there")
    return found


def _bindings(face: Module, package: str) -> tuple[set[str], set[str], set[str]]:
    """Names under ``TYPE_CHECKING``, names given to ``lazy``, and all other names of a face."""
    seen: set[str] = set()
    loaded: set[str] = set()
    bound: set[str] = set()
    for node in face.tree.body:
        if isinstance(node, ast.If):
            for inner in node.body:
                if isinstance(inner, ast.ImportFrom):
                    seen.update(alias.asname or alias.name for alias in inner.names)
            for call in (one for part in node.orelse for one in ast.walk(part)):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "lazy":
                    for names in ast.literal_eval(call.args[1]).values():
                        loaded.update(names)
        elif isinstance(node, ast.ImportFrom):
            bound.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.Assign):
            bound.update(one.id for one in node.targets if isinstance(one, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            bound.add(node.target.id)
    return seen, loaded, bound
