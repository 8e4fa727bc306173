"""What the written pages promise: links lead somewhere, lists are whole, the README is short."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tidegate.spec import load

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


def blocks(page: str) -> list[dict[str, Any]]:
    text = (ROOT / page).read_text()
    return [yaml.safe_load(one) for one in re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)]


def merged(spec: Any, more: Any) -> Any:
    """``spec`` with ``more`` written into it, as a reader would."""
    if not (isinstance(spec, dict) and isinstance(more, dict)):
        return more
    return {**spec, **{name: merged(spec.get(name), value) for name, value in more.items()}}


def test_the_specs_of_the_readme_and_the_quickstart_are_sound(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src" / "tidegate" / "cli" / "starter", tmp_path, dirs_exist_ok=True)
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "sorry.md").write_text("Please try again in a minute.\n")
    spec = tmp_path / "tidegate.yaml"
    (provider,) = blocks("docs/quickstart.md")
    starter = yaml.safe_load(spec.read_text().replace("{{ app }}", "support"))
    first, *more = blocks("README.md")
    assert more
    for told in (first, *(merged(first, one) for one in more), {**starter, **provider}):
        spec.write_text(yaml.safe_dump(told))
        load(tmp_path, {})


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
