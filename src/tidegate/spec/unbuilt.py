"""Keys that are not built yet: what happens instead, and which of them would protect users.

A person who writes a guard believes that it guards. So a key that would protect somebody is a
mistake until it is built, unless the spec says ``experimental: true``; all others, and these then
too, are notices. Each is in the digest of the release from its first day. A key that is not in
this table is acted on.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tidegate.spec.mistakes import Finding, Path


class Unbuilt(msgspec.Struct, frozen=True):
    """``instead``: what happens in place of what the key says. ``protects``: whether somebody may
    rely on it to be kept from harm or cost."""

    instead: str
    protects: bool = False


UNBUILT: dict[tuple[str, ...], Unbuilt] = {
    ("routes", "*", "models", "small"): Unbuilt("the large model answers, whatever choose says"),
    ("routes", "*", "variants", "*", "models", "small"): Unbuilt(
        "the large model answers, whatever choose says"
    ),
    ("routes", "*", "cache", "semantic"): Unbuilt(
        "only identical requests are answered from the cache"
    ),
    ("routes", "*", "guard"): Unbuilt("only the schema of output is checked", protects=True),
    ("tools", "*", "cost"): Unbuilt("it is not added to what a request costs"),
    ("journeys", "*", "slo"): Unbuilt(
        "the profile shows the figures; nothing is held or stopped", protects=True
    ),
    ("datasets",): Unbuilt("the files are pinned in the release; nothing reads them"),
    ("evals",): Unbuilt("no eval is run"),
    ("evals", "*", "gate"): Unbuilt("no release is held back", protects=True),
    ("release",): Unbuilt(
        "tidegate build makes releases; nothing moves them in stages", protects=True
    ),
    ("environments",): Unbuilt("every environment runs the same release"),
    ("environments", "*", "from"): Unbuilt("a release runs there at once", protects=True),
    ("environments", "*", "approvals"): Unbuilt("nobody is asked", protects=True),
}
"""Path pattern (``*`` any name) to what happens instead."""

_NOTHING: tuple[object, ...] = (None, False, 0, "", [], {})
"""Values that ask for nothing, so that nothing is left out."""


def mistakes(plain: object, *, experimental: bool) -> Iterator[Finding]:
    """A finding for each key that would protect somebody, where the spec is not experimental."""
    for path, unbuilt in () if experimental else _found(plain):
        if unbuilt.protects:
            yield Finding(
                path=path,
                message=f"{path[-1]} is not built yet: {unbuilt.instead}",
                expected="no such key, or experimental: true at the top of the file",
                at_key=True,
            )


def notices(plain: object) -> Iterator[Finding]:
    """A finding for each key of the table that stands in the tree."""
    for path, unbuilt in _found(plain):
        message = f"{path[-1]} is not acted on yet: {unbuilt.instead}"
        yield Finding(path=path, message=message, at_key=True)


def _found(plain: object) -> Iterator[tuple[Path, Unbuilt]]:
    for pattern, unbuilt in UNBUILT.items():
        for path in _matches(plain, pattern, ()):
            yield path, unbuilt


def _matches(plain: object, pattern: tuple[str, ...], path: Path) -> Iterator[Path]:
    if not pattern:
        if plain not in _NOTHING:
            yield path
    elif isinstance(plain, dict):
        for name in plain if pattern[0] == "*" else (pattern[0],):
            if name in plain:
                yield from _matches(plain[name], pattern[1:], (*path, name))
