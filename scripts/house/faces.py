"""Rooms meet at their faces: a room imports ``from tidegate.ROOM import name``, nothing deeper.

A face is what a room's ``__init__.py`` names in ``__all__``. What stands there may be used by other
rooms; all else of a room may be renamed without looking outside. Names whose modules are costly to
load are loaded when they are first asked for (``tidegate.base.lazy``), so that a face costs no
more at start than its light half.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from house.source import Module, Source

REASONS: dict[tuple[str, str], str] = {
    # (importing module, imported module): why not through the face
}
KNOWN: dict[tuple[str, str], int] = {
    # (importing room, imported room): deep imports that are still there; only ever lower these
    ("cli", "spec"): 1,
    ("deploy", "gateway"): 1,
    ("gateway", "base"): 57,
    ("gateway", "ledger"): 17,
    ("gateway", "registry"): 1,
    ("gateway", "release"): 21,
    ("gateway", "secrets"): 1,
    ("gateway", "stores"): 35,
    ("gateway", "switches"): 6,
    ("registry", "base"): 6,
}


@dataclass(frozen=True)
class Crossing:
    """One name that a module imports from another room."""

    module: Module
    line: int
    room: str
    target: str
    """The dotted module it is imported from."""
    name: str


def problems(
    source: Source,
    reasons: Mapping[tuple[str, str], str] | None = None,
    known: Mapping[tuple[str, str], int] | None = None,
) -> list[str]:
    """Rooms without a face, names that a face does not export, imports that pass it by."""
    reasons = REASONS if reasons is None else reasons
    known = KNOWN if known is None else known
    found: list[str] = []
    faces = {room: _exported(source.face(room)) for room in sorted(source.rooms)}
    deep: dict[tuple[str, str], list[Crossing]] = {}
    used: set[tuple[str, str]] = set()
    for crossing in crossings(source):
        pair = (crossing.module.room, crossing.room)
        reason = (crossing.module.name, crossing.target)
        face = faces[crossing.room]
        if reason in reasons:
            used.add(reason)
        elif crossing.target != f"{source.package}.{crossing.room}":
            deep.setdefault(pair, []).append(crossing)
        elif face is not None and crossing.name not in face:
            found.append(
                f"{crossing.module.path}:{crossing.line}: {crossing.name} is not in __all__ of "
                f"{source.package}.{crossing.room}: export it there, or do without it"
            )
    for room, face in faces.items():
        beyond = [pair for pair in deep if len(deep[pair]) > known.get(pair, 0)]
        if face is None and any(pair[1] == room for pair in beyond):
            found.append(
                f"{room}/__init__.py has no __all__: name there what other rooms may import"
            )
    for pair, imports in sorted(deep.items()):
        allowed = known.get(pair, 0)
        if len(imports) > allowed:
            found += _too_deep(source, imports, allowed)
    found += [
        f"{importer} no longer imports {target}: take the line out of REASONS in "
        "scripts/house/faces.py"
        for importer, target in sorted(reasons.keys() - used)
    ]
    return found


def _too_deep(source: Source, imports: list[Crossing], allowed: int) -> Iterator[str]:
    for one in imports:
        yield (
            f"{one.module.path}:{one.line}: {one.target} is inside another room: write "
            f"from {source.package}.{one.room} import {one.name}"
            + (f" ({allowed} of {len(imports)} are known)" if allowed else "")
        )


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
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets
        ):
            return frozenset(ast.literal_eval(node.value))
    return None


def counts(source: Source) -> Counter[tuple[str, str]]:
    """Deep imports by importing and imported room."""
    return Counter(
        (one.module.room, one.room)
        for one in crossings(source)
        if one.target != f"{source.package}.{one.room}"
        and (one.module.name, one.target) not in REASONS
    )


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
