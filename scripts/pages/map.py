"""``docs/map.md``: the floors out of ``pyproject.toml``, the rooms out of their cards."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "tidegate"

HEAD = """# The map

A room imports only from floors below its own; rooms on one floor do not import each other
(`make check` holds it). Three file names mean the same in every room: `rules.py` decides and does
nothing else, `ports.py` says what others implement, `run.py` acts.
"""


def page() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = project["tool"]["importlinter"]["contracts"][0]
    floors = [[room.strip(" ()") for room in layer.split("|")] for layer in contract["layers"]]
    rooms = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    named = {room for floor in floors for room in floor}
    parts = [HEAD]
    for number, floor in zip(range(len(floors) - 1, -1, -1), floors, strict=True):
        parts += _floor(f"Floor {number}", [room for room in floor if room in rooms])
    parts += _floor("Beside the floors", sorted(rooms - named))
    return "\n".join(parts)


def _floor(title: str, rooms: list[str]) -> list[str]:
    return [f"## {title}\n", *(_card(room) for room in rooms)] if rooms else []


def _card(room: str) -> str:
    tree = ast.parse((SOURCE / room / "__init__.py").read_text(encoding="utf-8"))
    card = ast.get_docstring(tree) or "*This room has no card.*"
    sentence, _, rest = card.partition("\n\n")
    text = f"### `{room}`\n\n{' '.join(sentence.split())}\n"
    return f"{text}\n```text\n{rest.strip()}\n```\n" if rest.strip() else text
