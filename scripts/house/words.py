"""Words: the glossary is true, cards use only its words, and retired words do not come back."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from house.source import ROOT, Source

RETIRED = {
    "borrow": "reserve",
    "lend": "grant",
    "loan": "reservation",
    "wish": "reservation, or what is asked for",
}
"""Words that this code once had for itself, and the field's word for each."""
_RETIRED = re.compile(
    r"(?<![a-z])(borrow(?:s|ed|ing)?|lend(?:s|ing)?|lent|loans?|wish(?:es|ed)?)(?![a-z])", re.I
)

GLOSSARY = ROOT / "docs" / "glossary.md"
_ROW = re.compile(
    r"\| (?P<word>[^|]+) \| (?P<meaning>[^|]+) \| (?P<lives>[^|]+) \| (?P<is_not>[^|]*)\|"
)
_WORDS = re.compile(r"^Words:\s+(.*(?:\n {8,}.*)*)", re.MULTILINE)


def problems(source: Source, glossary: Path = GLOSSARY) -> list[str]:
    """What is wrong in the glossary, and words of cards that it does not have."""
    return [*_problems(source, glossary.read_text(encoding="utf-8")), *_retired(source)]


def _retired(source: Source) -> Iterator[str]:
    for module in source.modules:
        for number, line in enumerate(module.text.splitlines(), 1):
            for word in _RETIRED.findall(line):
                stem = next((one for one in RETIRED if word.lower().startswith(one)), "lend")
                yield f"{module.path}:{number}: {word!r} is a retired word: write {RETIRED[stem]}"


def _problems(source: Source, text: str) -> Iterator[str]:
    where = "docs/glossary.md"
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    words: list[str] = []
    for line in lines:
        row = _ROW.fullmatch(line)
        if row is None:
            shown = line[:60]
            yield f"{where}: not a row of word, meaning, where it lives, what it is not: {shown}"
            continue
        words.append(row["word"])
        if row["meaning"].count(". ") or not row["meaning"].endswith("."):
            yield f"{where}: the meaning of {row['word']!r} is not one sentence with a full stop"
        for module in re.findall(r"`([^`]+)`", row["lives"]):
            if not source.has_module(f"{source.package}.{module}"):
                yield f"{where}: {row['word']!r} lives in {module}, which is no module"
        if "`" not in row["lives"]:
            yield f"{where}: {row['word']!r} names no module that it lives in"
    for before, after in itertools.pairwise(words):
        if before.lower() == after.lower():
            yield f"{where}: {after!r} stands twice: one word has one meaning"
        elif before.lower() > after.lower():
            yield f"{where}: {after!r} stands after {before!r}: sort the rows"
    known = {word.lower() for word in words}
    for room in sorted(source.rooms):
        for word in card_words(source, room):
            if word.lower() not in known:
                yield (
                    f"{room}/__init__.py: its card uses the word {word!r}, which is not in "
                    f"{where}: add a row, or use the field's word that is there"
                )


def card_words(source: Source, room: str) -> list[str]:
    """The words on the ``Words:`` line of a room's card."""
    face = source.face(room)
    card = "" if face is None else ast.get_docstring(face.tree) or ""
    found = _WORDS.search(card)
    return [] if found is None else [" ".join(one.split()) for one in found[1].split(",")]
