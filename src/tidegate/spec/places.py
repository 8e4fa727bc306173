"""Plain values of a YAML tree with variables bound, and the source position of each path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tidegate.base import bind
from tidegate.spec.mistakes import Finding, Path
from tidegate.spec.nodes import YamlList, YamlMapping, YamlNode, YamlScalar, plain_value


@dataclass
class Places:
    """Source positions by path, of keys and of values. ``authored`` holds the text of scalars that
    had variables, so that no message shows what a variable held: it may be a secret."""

    keys: dict[Path, YamlScalar] = field(default_factory=dict)
    values: dict[Path, YamlNode] = field(default_factory=dict)
    authored: dict[Path, str] = field(default_factory=dict)
    mistakes: list[Finding] = field(default_factory=list)
    notices: list[Finding] = field(default_factory=list)

    def at(self, path: Path, *, key: bool = False) -> YamlNode:
        """The node at ``path``, or at the nearest place above it that stands in a file."""
        if key and path in self.keys:
            return self.keys[path]
        while path not in self.values:
            path = path[:-1]
        return self.values[path]


def kept_unbound(path: Path) -> bool:
    """Whether variables at ``path`` are bound where the release is served, not here."""
    return len(path) == 3 and path[0] == "models" and path[2] == "base_url"


TextAt = Callable[[Path], bool | None]
"""Whether text may stand at a path; None when anything may."""


def to_plain(
    top: YamlMapping, environment: Mapping[str, str], text_at: TextAt = lambda _: None
) -> tuple[dict[str, object], Places]:
    """Plain dicts, lists and scalars. Findings about variables are in the places.

    A scalar with variables is text where text may stand and else what its value means unquoted:
    inside ``{ }`` it must be quoted, and may be a number nevertheless.
    """
    places = Places()
    value = _plain(top, (), _Binding(environment, text_at), places)
    assert isinstance(value, dict)
    return value, places


@dataclass(frozen=True, slots=True)
class _Binding:
    environment: Mapping[str, str]
    text_at: TextAt


def _plain(node: YamlNode, path: Path, binding: _Binding, places: Places) -> object:
    places.values[path] = node
    if isinstance(node, YamlScalar):
        return _scalar(node, path, binding, places)
    if isinstance(node, YamlList):
        return [_plain(item, (*path, at), binding, places) for at, item in enumerate(node.items)]
    plain: dict[str, object] = {}
    for name, (key, value) in node.entries.items():
        places.keys[(*path, name)] = key
        plain[name] = _plain(value, (*path, name), binding, places)
    return plain


def _scalar(node: YamlScalar, path: Path, binding: _Binding, places: Places) -> object:
    bound = bind(node.text, binding.environment)
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
    if bound.text == node.text:
        return plain_value(node.text) if node.plain else node.text
    places.authored[path] = node.text
    if not bound.text:
        return None if node.plain else ""
    text = binding.text_at(path)
    return bound.text if text or (text is None and not node.plain) else plain_value(bound.text)
