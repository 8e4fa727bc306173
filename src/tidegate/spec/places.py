"""The tree as plain values with variables bound, and where each of them stands."""

from __future__ import annotations

from collections.abc import Mapping as Environment
from dataclasses import dataclass, field

from tidegate.spec.mistakes import Finding, Path
from tidegate.spec.nodes import Listing, Mapping, Node, Scalar, plain_value
from tidegate.spec.variables import bind


@dataclass
class Places:
    """``keys`` and ``values`` by path; ``authored`` holds the text of scalars that had variables,
    so that no message shows what a variable held."""

    keys: dict[Path, Scalar] = field(default_factory=dict)
    values: dict[Path, Node] = field(default_factory=dict)
    authored: dict[Path, str] = field(default_factory=dict)
    mistakes: list[Finding] = field(default_factory=list)
    notices: list[Finding] = field(default_factory=list)

    def at(self, path: Path, *, key: bool = False) -> Node:
        """The node at ``path``, or at the nearest place above it that stands in a file."""
        if key and path in self.keys:
            return self.keys[path]
        while path not in self.values:
            path = path[:-1]
        return self.values[path]


def kept_unbound(path: Path) -> bool:
    """Whether variables at ``path`` are bound where the release is served, not here."""
    return len(path) == 3 and path[0] == "models" and path[2] == "base_url"


def to_plain(top: Mapping, environment: Environment[str, str]) -> tuple[dict[str, object], Places]:
    """Plain dicts, lists and scalars. Findings about variables are in the places."""
    places = Places()
    value = _plain(top, (), environment, places)
    assert isinstance(value, dict)
    return value, places


def _plain(node: Node, path: Path, environment: Environment[str, str], places: Places) -> object:
    places.values[path] = node
    if isinstance(node, Scalar):
        return _scalar(node, path, environment, places)
    if isinstance(node, Listing):
        return [
            _plain(item, (*path, at), environment, places) for at, item in enumerate(node.items)
        ]
    plain: dict[str, object] = {}
    for name, (key, value) in node.entries.items():
        places.keys[(*path, name)] = key
        plain[name] = _plain(value, (*path, name), environment, places)
    return plain


def _scalar(node: Scalar, path: Path, environment: Environment[str, str], places: Places) -> object:
    bound = bind(node.text, environment)
    if bound.broken:
        places.mistakes.append(
            Finding(
                path=path,
                message="a ${ is not closed or names no variable",
                expected="${VARIABLE} or ${VARIABLE:-default}; $$ for a dollar sign",
            )
        )
    found = places.notices if kept_unbound(path) else places.mistakes
    for name in dict.fromkeys(bound.unset):
        end = ": needed where the release is served" if kept_unbound(path) else ""
        found.append(
            Finding(
                path=path,
                message=f"variable {name} is not set{end}",
                expected=f"{name} in the environment, or a default: ${{{name}:-value}}",
            )
        )
    if kept_unbound(path):
        return plain_value(node.text) if node.plain else node.text
    if bound.text != node.text:
        places.authored[path] = node.text
    return plain_value(bound.text) if node.plain else bound.text
