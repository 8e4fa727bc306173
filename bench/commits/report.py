"""A comparison for people: a table on the terminal, the same in Markdown for docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from bench.gateway.report import bar_rows, markdown_table, number, print_table

COLUMNS = ("figure", "base", "spread", "head", "spread", "head / base", "worse in")


def rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A figure a row: medians, largest less smallest, the ratio, and in how many runs it rose."""
    return [
        (
            f"{one['name']}, {one['unit']}",
            *(
                number(one[side][what])
                for side in ("base", "head")
                for what in ("median", "spread")
            ),
            "-" if one["ratio"] is None else f"{one['ratio']:.3f}",
            f"{one['worse_in']} of {len(one['base']['values'])}",
        )
        for one in result["figures"]
    ]


def show(result: Mapping[str, Any], console: Console) -> None:
    """Print the tables of a comparison."""
    title = f"{result['head']} (head) against {result['base']} (base), medians"
    print_table(console, title, COLUMNS, rows(result))
    verdicts = bar_rows(result["bars"])
    print_table(console, "Bars", ("bar", "this run", "limit", "verdict"), verdicts)


def markdown(result: Mapping[str, Any]) -> str:
    """The dated summary."""
    machine, settings = result["machine"], result["settings"]
    parts = [
        f"### {result['date'][:10]}, {result['head']} against {result['base']}",
        f"{machine['cores']} cores of {machine['processor']}, {machine['system']}, Python "
        f"{machine['python']}; {settings['runs']} runs of each in turns, {settings['seconds']:g} s "
        f"a measurement, medians; {machine['busy_cores_before']:.2f} cores were busy before.",
        markdown_table(COLUMNS, rows(result)),
        markdown_table(("bar", "this run", "limit", "verdict"), bar_rows(result["bars"])),
    ]
    if result["warnings"]:
        parts.append("Beware: " + "; ".join(result["warnings"]) + ".")
    return "\n\n".join(parts) + "\n"
