"""One public name, one class: no two modules of the package define the same one.

A type alias and a Protocol count as classes. A name that two rooms define reads like one thing in
a diff, a traceback and a review, and is two.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator

from house.source import Source

KNOWN: dict[str, str] = {}
"""Names that may stand twice, each with the reason."""


def problems(source: Source, known: dict[str, str] | None = None) -> list[str]:
    """Each public class or type alias that is defined more than once."""
    known = KNOWN if known is None else known
    places: dict[str, list[str]] = defaultdict(list)
    for module in source.modules:
        for name, line in defined(module.tree):
            places[name].append(f"{module.path}:{line}")
    doubles = {name: where for name, where in places.items() if len(where) > 1}
    found = [
        f"the public class {name} is defined in {' and '.join(where)}: give each a name of its own "
        "that says which it is"
        for name, where in sorted(doubles.items())
        if name not in known
    ]
    found += [
        f"{name} is defined once now: take its line out of KNOWN in scripts/house/names.py"
        for name in sorted(known.keys() - doubles.keys())
    ]
    return found


def defined(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Public classes and type aliases that a module defines, with their lines."""
    for node in _top(tree.body):
        if isinstance(node, ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            names = [name for name in names if _is_type_name(name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id] if _is_type_name(node.target.id) else []
        else:
            names = []
        for name in names:
            if not name.startswith("_"):
                yield name, node.lineno


def _top(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module, those under ``if`` and ``try`` included."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try):
            yield from _top([*node.body, *node.orelse])


def _is_type_name(name: str) -> bool:
    """``Handler`` and ``JSONValue`` are types; ``TABLE`` and ``_Private`` are not."""
    return name[:1].isupper() and not name.isupper()
