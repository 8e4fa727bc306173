"""What the written pages promise: links lead somewhere, lists are whole, the README is short."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *ROOT.glob("examples/*/*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_begins_with_what_a_newcomer_needs() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert next(i for i, line in enumerate(lines, 1) if line == "make demo") < 15
    assert next(i for i, line in enumerate(lines, 1) if line == "## The map") < 40
    assert "img.shields.io" not in "\n".join(lines)


def test_the_readme_s_map_has_every_room() -> None:
    text = (ROOT / "README.md").read_text()
    rooms = [path.parent.name for path in (ROOT / "src" / "tidegate").glob("*/__init__.py")]
    assert [room for room in rooms if f"`{room}`" not in text] == []


def test_the_index_lists_every_design_note() -> None:
    text = (ROOT / "docs" / "README.md").read_text()
    notes = [path.name for path in (ROOT / "docs" / "design").glob("*.md")]
    assert [note for note in notes if f"(design/{note})" not in text] == []


def test_every_long_test_is_named() -> None:
    text = (ROOT / "docs" / "testing.md").read_text()
    marked = r"@pytest\.mark\.long\b(?:\n@.*)*\n(?:async )?def (test_\w+)"
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in re.findall(marked, file.read_text()):
            assert f"{file.relative_to(ROOT)}::{name}" in text, f"docs/testing.md lacks {name}"


def test_no_page_names_a_place_outside_of_the_project() -> None:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "*.md"], capture_output=True, text=True, check=False
    )
    for name in listed.stdout.split():
        if (ROOT / name).is_file():
            assert not re.search(r"(?<![\w.])/(?:work|root|home)/", (ROOT / name).read_text()), name
