"""``docs/README.md``: the pages for readers, then every design note by its own title."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = {
    "quickstart.md": "from nothing to a profile in five minutes",
    "http-api.md": "what the gateway takes and answers",
    "spec-reference.md": "every key of `tidegate.yaml` (generated)",
    "commands.md": "every command with its options (generated)",
    "errors.md": "every error code (generated)",
    "glossary.md": "what each word means here",
    "map.md": "the rooms of the code and their cards (generated)",
    "faults.md": "what the gateway promises under each fault, and the scorecard",
    "benchmarks.md": "what the gateway costs, beside its peers",
    "testing.md": "which tests there are and how they are run",
    "changes/README.md": "what changed, as outcomes",
}


def page() -> str:
    rows = [f"| [{name}]({name}) | {what} |" for name, what in PAGES.items()]
    notes = [f"- [{_title(note)}](design/{note.name})" for note in sorted(DOCS.glob("design/*.md"))]
    return "\n".join(
        [
            "# Documentation",
            "",
            "| page | what for |",
            "|---|---|",
            *rows,
            "",
            "A design note says what a room is for, why it is as it is, which objects it has and "
            "how long they live:",
            "",
            *notes,
            "",
            "The generated pages are written by `make fix` from the code; `make check` fails when "
            "one is stale.",
            "",
        ]
    )


def _title(note: Path) -> str:
    return note.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ").strip()
