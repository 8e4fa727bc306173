"""Mistakes and notices: findings about a spec with their place in a file."""

from __future__ import annotations

import bisect
import difflib
from collections.abc import Iterable, Sequence

import msgspec

from tidegate.base import SpecError

_COMPARED = 64

Path = tuple[str | int, ...]
"""Keys and list indexes from the top of the spec."""


class Mistake(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that must be mended. Line and column count from 1."""

    file: str
    """Path as it was given, or relative to the app folder for included and referenced files."""
    line: int
    column: int
    path: str
    """Where in the spec: ``routes.recommend.models``."""
    message: str
    """What is wrong."""
    expected: str | None = None
    """What may stand there."""
    nearest: str | None = None
    """The valid name nearest to what was written."""
    source: str = ""
    """The line of the file, for people."""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to know; the spec is valid. Line and column count from 1."""

    file: str
    line: int
    column: int
    path: str
    message: str


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A mistake or notice that a rule found, before its place in the file is known."""

    path: Path
    message: str
    expected: str | None = None
    nearest: str | None = None
    at_key: bool = False
    """Point at the key rather than at its value."""
    file: str | None = None
    """A referenced file that holds it, with ``line`` and ``column``; else the spec does."""
    line: int = 1
    column: int = 1


def dotted(path: Path) -> str:
    """``routes.recommend.fallback[0]``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """The valid name that ``word`` was probably meant to be, or None. Of many names only those next
    to it in the alphabet are compared, so that thousands of mistakes take seconds."""
    by_lower = {name.lower(): name for name in valid}
    word = word.lower()[:100]
    names = list(by_lower)
    if len(names) > _COMPARED:
        names.sort()
        at = bisect.bisect(names, word)
        names = names[max(0, at - _COMPARED // 2) : at + _COMPARED // 2]
    found = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def one_of(valid: Iterable[str], *, most: int = 12) -> str | None:
    """``one of: a, b``; None when there is nothing to name."""
    names = sorted(valid)
    if not names:
        return None
    return "one of: " + ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def spec_invalid(file: str, mistakes: Sequence[Mistake]) -> SpecError:
    """The error that carries every mistake; its message names each on a line."""
    count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    lines = [f"{m.file}:{m.line}:{m.column}  {m.message}" for m in mistakes]
    return SpecError(
        "spec_invalid",
        "\n  ".join([f"{file} has {count}", *lines]),
        cure="mend each line named above; tidegate check shows what each expects",
        mistakes=mistakes,
    )
