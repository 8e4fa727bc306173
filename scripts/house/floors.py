"""The floor plan that opens the package is the one that the import contracts hold."""

from __future__ import annotations

import ast
import re
import tomllib

from house.source import Source

_LINE = re.compile(r"^ +(\d+) {2}(\S+(?:, \S+)*) {2,}\S", re.MULTILINE)


def problems(source: Source) -> list[str]:
    """Floors that the package's docstring tells otherwise than ``pyproject.toml`` has them."""
    (package,) = (module for module in source.modules if module.path == "__init__.py")
    text = (source.root / "pyproject.toml").read_text(encoding="utf-8")
    layers = tomllib.loads(text)["tool"]["importlinter"]["contracts"][0]["layers"]
    held = [[room.strip(" ()") for room in layer.split("|")] for layer in layers]
    shown = [
        (int(number), rooms.split(", "))
        for number, rooms in _LINE.findall(ast.get_docstring(package.tree, clean=False) or "")
    ]
    floors = list(zip(range(len(held) - 1, -1, -1), held, strict=True))
    return [
        f"__init__.py: floor {number} is {' | '.join(rooms)} in pyproject.toml: write it so into "
        "the floor plan of the package's docstring"
        for number, rooms in floors
        if (number, rooms) not in shown
    ] + [
        f"__init__.py: the floor plan shows {', '.join(rooms)} on floor {number}, where they are "
        "not: see the layers in pyproject.toml"
        for number, rooms in shown
        if (number, rooms) not in floors
    ]
