"""Client APIs, one file each; built-ins and plug-ins are found the same way."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points

from tidegate.base import ReleaseError
from tidegate.gateway.ports import ClientDialect

GROUP = "tidegate.dialects"


def find_dialects() -> Mapping[str, ClientDialect]:
    """Every installed dialect by the path of its endpoint. Raises ReleaseError when two claim one
    path."""
    found: dict[str, ClientDialect] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda one: one.name):
        dialect: ClientDialect = point.load()()
        if dialect.path in found:
            raise ReleaseError(
                "dialect_twice",
                f"{dialect.path} is answered by {found[dialect.path].name} and by {point.name}",
                cure="uninstall one of the packages that provide them",
            )
        found[dialect.path] = dialect
    return found
