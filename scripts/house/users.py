"""Tests, benchmarks and examples import only names that the package has.

A rename that forgets one of them would be found by the whole test suite, minutes later.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from house.source import Source

FOLDERS = ("tests", "bench", "examples", "scripts")


def problems(source: Source) -> list[str]:
    """Imports of modules or names that are not there."""
    modules = {module.name: module.tree for module in source.modules}
    bound: dict[str, frozenset[str]] = {}
    found = []
    for folder in FOLDERS:
        for path in sorted((source.root / folder).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
            where = path.relative_to(source.root).as_posix()
            for line, module, name in _imports(tree, source.package):
                if module not in modules:
                    found.append(f"{where}:{line}: there is no module {module}")
                    continue
                if module not in bound:
                    bound[module] = frozenset(_names(modules[module]))
                if name not in bound[module] and f"{module}.{name}" not in modules:
                    found.append(f"{where}:{line}: {module} has no {name}: was it renamed?")
    return found


def _imports(tree: ast.Module, package: str) -> Iterator[tuple[int, str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = node.names if node.module.split(".")[0] == package else []
            for alias in names:
                yield node.lineno, node.module, alias.name


def _names(tree: ast.Module) -> Iterator[str]:
    """What a module binds at its top, under ``if`` and ``try`` too."""
    body = list(tree.body)
    while body:
        node = body.pop()
        if isinstance(node, ast.If | ast.Try | ast.With):
            body += node.body
            body += getattr(node, "orelse", [])
            body += [part for one in getattr(node, "handlers", []) for part in one.body]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.split(".")[0] for alias in node.names)
        else:
            for inner in ast.walk(node):
                if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                    yield inner.id
