"""A misspelt field of a plan is an error of the type checker, wherever a stage reads one.

Tried, not believed: every field of a plan, a route or a request that the gateway reads is misspelt
in a copy, and mypy must name each of them. One that it does not name is reached through ``Any``.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from house.source import Source

FOLDER = "gateway/"
VALUES = frozenset({"plan", "route", "request", "release", "journal", "answer", "ask"})
"""Names of the values that stages are given."""
_ERROR = re.compile(r"^(?P<path>[^:]+):(?P<line>\d+): error: .*has no attribute \"(?P<name>\w+)\"")


@dataclass(frozen=True)
class Misspelling:
    """One field that is misspelt in the copy of a file."""

    path: str
    line: int
    column: int
    field: str

    @property
    def written(self) -> str:
        """Two neighbours in the wrong order, as fingers do it: ``cahce_ttl``."""
        name = self.field
        for at in range(len(name) // 2, len(name) - 1):
            if name[at] != name[at + 1]:
                return name[:at] + name[at + 1] + name[at] + name[at + 2 :]
        return name + "e"


def problems(source: Source) -> list[str]:
    """Fields that can be misspelt without an error."""
    tried = [one for module in source.modules for one in misspellings(module.path, module.tree)]
    if not tried:
        return [f"{FOLDER}: no stage reads a plan: mend the rule in scripts/house/misspelt.py"]
    # A misspelt field that is assigned to a variable makes that variable Any, and hides what is
    # misspelt behind it: what was not named is tried again without the others.
    left, before = tried, len(tried) + 1
    while left and len(left) < before:
        named, before = _named_by_mypy(source, left), len(left)
        left = [one for one in left if (one.path, one.line, one.written) not in named]
    return [
        f"{one.path}:{one.line}: {one.written!r} for {one.field!r} passes the type checker: "
        "the value before it is Any, so give it its type"
        for one in left
    ]


def misspellings(path: str, tree: ast.Module) -> Iterator[Misspelling]:
    """The last field of each chain that begins at one of the ``VALUES``, or goes through one."""
    if not path.startswith(FOLDER):
        return
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Load)
            and id(node) not in inner
            and any(_is_value(part) for part in _before(node))
            and node.end_col_offset is not None
            and node.end_lineno is not None
        ):
            column = node.end_col_offset - len(node.attr)
            yield Misspelling(path, node.end_lineno, column, node.attr)


def _before(node: ast.Attribute) -> Iterator[ast.expr]:
    part: ast.expr = node.value
    yield part
    while isinstance(part, ast.Attribute):
        part = part.value
        yield part


def _is_value(part: ast.expr) -> bool:
    return (isinstance(part, ast.Name) and part.id in VALUES) or (
        isinstance(part, ast.Attribute) and part.attr in VALUES
    )


def _named_by_mypy(source: Source, tried: list[Misspelling]) -> set[tuple[str, int, str]]:
    """What mypy says of the copies, as (path below the package, line, misspelt name)."""
    by_path: dict[str, list[Misspelling]] = {}
    for one in tried:
        by_path.setdefault(one.path, []).append(one)
    with tempfile.TemporaryDirectory() as folder:
        # The same paths as in the check before this one: its cache holds for all other files.
        copy = Path(folder) / source.folder.relative_to(source.root)
        shutil.copytree(source.folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", ".mypy_cache"):
            kept = source.root / name
            if kept.is_dir():
                shutil.copytree(kept, Path(folder) / name)
            elif kept.is_file():
                shutil.copy(kept, folder)
        for path, places in by_path.items():
            lines = (source.folder / path).read_bytes().splitlines(keepends=True)
            for one in sorted(places, key=lambda place: -place.column):
                line, end = lines[one.line - 1], one.column + len(one.field)
                lines[one.line - 1] = line[: one.column] + one.written.encode() + line[end:]
            (copy / path).write_bytes(b"".join(lines))
        command = [sys.executable, "-m", "mypy", "--no-error-summary", "--no-color-output"]
        command += ["--no-pretty", copy.relative_to(folder).as_posix()]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=600
        )
    if not done.stdout and done.returncode:
        raise RuntimeError(f"mypy did not run: {done.stderr}")
    below = f"{source.folder.relative_to(source.root).as_posix()}/"
    matches = filter(None, map(_ERROR.match, done.stdout.splitlines()))
    return {(one["path"].removeprefix(below), int(one["line"]), one["name"]) for one in matches}
