"""Variables in text: ``${VAR}`` and ``${VAR:-default}``, bound from a given mapping.

``$$`` stands for one dollar sign. Nothing is bound in keys of mappings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_USE = re.compile(r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\}|(\{))")


@dataclass(frozen=True, slots=True)
class Bound:
    """``text`` with its variables bound; ``unset`` names those that have neither a value nor a
    default; ``broken`` when a ``${`` is not of either form."""

    text: str
    unset: tuple[str, ...] = ()
    broken: bool = False


def bind(text: str, environment: Mapping[str, str]) -> Bound:
    """Bind every variable in ``text``. As in a shell, ``:-`` covers the empty value too."""
    if "$" not in text:
        return Bound(text)
    unset: list[str] = []
    broken = False

    def value(match: re.Match[str]) -> str:
        nonlocal broken
        dollar, name, default, opened = match.groups()
        if dollar:
            return "$"
        if opened:
            broken = True
            return match.group(0)
        found = environment.get(name, "" if default is not None else None)
        if found is None:
            unset.append(name)
            return match.group(0)
        return found or default or ""

    return Bound(_USE.sub(value, text), tuple(unset), broken)
