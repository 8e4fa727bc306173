"""Differences between two releases, in words; pure."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec

from tidegate.base import duration_text
from tidegate.release.values import Pinned, PinnedFlags, Prompt, Release

_SECTIONS = {
    "models": "model",
    "prompts": "prompt",
    "tools": "tool",
    "routes": "route",
    "limits": "limit",
    "journeys": "journey",
    "datasets": "data set",
    "evals": "eval",
    "environments": "environment",
}
"""Section of named things, and the word for one of them."""

_SINGLE = ("gateway", "ledger", "train")
_TIMES = {"cache_ttl", "connect", "first_token", "idle", "total", "after", "every", "wait"}
_TIMES |= {"idempotency", "backoff", "stale", "window", "open"}
_TIMES |= {"keep_receipts", "keep_content", "ttl"}
"""Fields in seconds, or whose own fields are (``total`` of an objective has ``p95``)."""
_WORDS = {
    "cache_ttl": "cache",
    "artifacts": "artifact",
    "file": "file",
    "json_schema": "schema",
    "store_content": "store content",
    "train": "release",
}
_FILES = {("file",), ("output", "file"), ("template", "file")}
"""Fields that hold the pin of a file whose content is compared in another field."""
_ABSENT = msgspec.UNSET
_MOST = 60
"""Longest value that is shown whole, in characters."""


class ReleaseChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change: of what (``route recommend``), and how (``cache 1h -> 10m``)."""

    kind: Literal["added", "removed", "changed"]
    what: str
    how: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.how or self.kind}"


def changes(a: Release, b: Release) -> tuple[ReleaseChange, ...]:
    """All changes from ``a`` to ``b``, in the order of the spec's sections."""
    found = [
        *_fields("app", a.app, b.app),
        *_fields("experimental", a.experimental, b.experimental),
    ]
    for section, word in _SECTIONS.items():
        found += _named(word, getattr(a, section), getattr(b, section))
    for section in _SINGLE:
        found += _fields(_WORDS.get(section, section), getattr(a, section), getattr(b, section))
    found += _named("flags", *({"": one.flags} if one.flags else {} for one in (a, b)))
    reported = _files_in_words(a) | _files_in_words(b)
    files_a = {path: pin for path, pin in a.files.items() if path not in reported}
    files_b = {path: pin for path, pin in b.files.items() if path not in reported}
    found += _named("file", files_a, files_b)
    return tuple(found)


def _files_in_words(release: Release) -> set[str]:
    """Paths of files whose change is reported where they are used."""
    schemas = (route.output.file.path for route in release.routes.values() if route.output)
    fixed = (route.template.file.path for route in release.routes.values() if route.template)
    return {
        *fixed,
        *(prompt.file.path for prompt in release.prompts.values()),
        *(tool.file.path for tool in release.tools.values()),
        *(pin.path for pin in release.datasets.values()),
        *schemas,
        *((release.flags.file.path,) if release.flags else ()),
    }


def _named(word: str, a: dict[str, Any], b: dict[str, Any]) -> Iterator[ReleaseChange]:
    for name in sorted(a.keys() | b.keys()):
        what = f"{word} {name}".strip()
        if name not in b:
            yield ReleaseChange(kind="removed", what=what)
        elif name not in a:
            yield ReleaseChange(kind="added", what=what)
        else:
            yield from _fields(what, a[name], b[name])


def _fields(what: str, a: Any, b: Any) -> Iterator[ReleaseChange]:
    """The changes of one named thing, field by field."""
    reported = False
    if isinstance(a, Prompt) and isinstance(b, Prompt) and a.text != b.text:
        reported = True
        yield ReleaseChange(kind="changed", what=what, how=text_change(a.text, b.text))
        a, b = (msgspec.structs.replace(p, text="") for p in (a, b))
    if isinstance(a, PinnedFlags) and isinstance(b, PinnedFlags) and a.document != b.document:
        reported = True
        yield ReleaseChange(kind="changed", what=what, how=text_change(a.document, b.document))
        a, b = (msgspec.structs.replace(one, document="") for one in (a, b))
    if isinstance(a, Pinned) and isinstance(b, Pinned):
        yield from _pinned(what, a, b)
        a, b = (getattr(pin, "cluster", None) for pin in (a, b))
        for how in _differences(a, b, ("cluster",)):
            yield ReleaseChange(kind="changed", what=what, how=how)
        return
    for how in _differences(a, b, ()):
        reported = True
        yield ReleaseChange(kind="changed", what=what, how=how)
    if not reported and _order_differs(a, b):
        yield ReleaseChange(
            kind="changed", what=what, how="order of the schema's properties changed"
        )
    elif not reported and a != b:
        yield ReleaseChange(kind="changed", what=what, how="layout of its file changed")


def _pinned(what: str, a: Pinned, b: Pinned) -> Iterator[ReleaseChange]:
    if a.path != b.path:
        yield ReleaseChange(kind="changed", what=what, how=f"file {a.path} -> {b.path}")
    if (a.sha256, a.size) != (b.sha256, b.size):
        how = f"content {a.sha256[:8]}.. -> {b.sha256[:8]}.. ({b.size - a.size:+,} bytes)"
        yield ReleaseChange(kind="changed", what=what, how=how)


def text_change(a: str, b: str) -> str:
    """``text changed (12 lines, +3 -1)``: lines now, lines added, lines removed."""
    old, new = a.splitlines(), b.splitlines()
    matcher = difflib.SequenceMatcher(a=old, b=new, autojunk=len(old) + len(new) > 4000)
    added = removed = 0
    for tag, from_old, to_old, from_new, to_new in matcher.get_opcodes():
        if tag != "equal":
            removed, added = removed + to_old - from_old, added + to_new - from_new
    lines = len(new)
    if not added and not removed:
        return "text changed (white space at line ends)"
    return f"text changed ({lines} line{'s' * (lines != 1)}, +{added} -{removed})"


def _differences(a: Any, b: Any, at: tuple[str, ...]) -> Iterator[str]:
    """A sentence for every scalar, list or branch that differs; of a file only its path."""
    a, b = _branch(a), _branch(b)
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys((*a, *b)):
            if at not in _FILES or key == "path":
                yield from _differences(a.get(key, _ABSENT), b.get(key, _ABSENT), (*at, str(key)))
    elif isinstance(b, dict) and b:
        yield f"{_name(at)} added"
    elif isinstance(a, dict) and a:
        yield f"{_name(at)} removed"
    elif _bytes(a) != _bytes(b):
        nothing = "null" if a is _ABSENT or b is _ABSENT else "none"
        old, new = (nothing if value is None else _show(at, value) for value in (a, b))
        yield f"{_name(at)} {old} -> {new}".strip()


def _branch(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    return value


def _bytes(value: Any) -> bytes:
    """JSON of a value: unlike ``==`` it tells 1, 1.0 and true apart, as the digest does."""
    return b"" if value is _ABSENT else msgspec.json.encode(value)


def _name(path: tuple[str, ...]) -> str:
    return " ".join(_WORDS.get(step, step) for step in path)


def _show(path: tuple[str, ...], value: Any) -> str:
    last = path[-1] if path else ""
    time = not _TIMES.isdisjoint(path[-2:])
    number = isinstance(value, int | float) and not isinstance(value, bool)
    rules: tuple[tuple[bool, Callable[[Any], str]], ...] = (
        (value is _ABSENT, lambda _: "none"),
        (time and number, duration_text),
        (last.endswith("sha256") and isinstance(value, str), lambda text: f"{text[:8]}.."),
        (isinstance(value, list | tuple), lambda items: ", ".join(map(str, items)) or "none"),
        (isinstance(value, bool), lambda flag: "on" if flag else "off"),
    )
    text = next((show(value) for holds, show in rules if holds), str(value))
    return text if len(text) <= _MOST else f"{text[: _MOST - 2]}.."


def _order_differs(a: Any, b: Any) -> bool:
    """Whether equal trees differ in the order of keys."""
    if isinstance(a, msgspec.Struct) and isinstance(b, msgspec.Struct):
        names = a.__struct_fields__
        return any(_order_differs(getattr(a, n), getattr(b, n)) for n in names)
    if isinstance(a, dict) and isinstance(b, dict):
        common = [key for key in a if key in b]
        return common != [key for key in b if key in a] or any(
            _order_differs(a[key], b[key]) for key in common
        )
    return False
