"""The scorecard: one word a cell, and why for every cell that is no pass."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from bench.faults.judge import WORDS

LABELS = {
    "tidegate": "Tidegate",
    "tidegate-hold": "Tidegate, hold",
    "client": "openai client",
    "litellm": "LiteLLM",
    "portkey": "Portkey",
    "tensorzero": "TensorZero",
}
_COLOURS = {"pass": "green", "partial": "yellow", "safe": "cyan", "fail": "bold red"}


def show(result: dict[str, Any], console: Console, *, explain: bool) -> None:
    systems = result["systems"]
    table = Table(title="Sixteen upstream faults: the word, and the seconds of the longest call")
    table.add_column("id")
    table.add_column("fault")
    for name in systems:
        table.add_column(f"{LABELS[name]}\n{result['versions'][name]}")
    for id_, title in result["scenarios"].items():
        table.add_row(id_, title, *(_cell(systems[name], id_) for name in systems))
    table.add_section()
    totals = ["/".join(str(systems[n]["counts"][word]) for word in WORDS) for n in systems]
    table.add_row("", "/".join(WORDS), *totals)
    console.print(table)
    if explain:
        for name in systems:
            for id_, cell in systems[name]["cells"].items():
                if cell["word"] != "pass":
                    words = f"{LABELS[name]} {id_} {cell['word']}: {cell['sentence']}"
                    console.print(words, soft_wrap=True, markup=False)


def _cell(system: dict[str, Any], id_: str) -> str:
    cell = system["cells"].get(id_)
    if cell is None:
        return "-"
    colour = _COLOURS[cell["word"]]
    return f"[{colour}]{cell['word']}[/] {cell['seconds']:.1f}"


def markdown(result: dict[str, Any]) -> str:
    """The scorecard for the documentation."""
    systems = result["systems"]
    host = result["machine"]
    heads = ["id", "fault", *(f"{LABELS[n]} {result['versions'][n]}" for n in systems)]
    lines = [
        f"### {result['date'][:10]}",
        "",
        f"{host['cores']} cores of {host['processor']}, {host['system']}, Python {host['python']}; "
        f"{'streamed' if result['stream'] else 'not streamed'} calls, one run.",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
    ]
    for id_, title in result["scenarios"].items():
        words = []
        for name in systems:
            cell = systems[name]["cells"].get(id_)
            words.append(f"{cell['word']} {cell['seconds']:.1f}" if cell else "-")
        lines.append(f"| {id_} | {title} | {' | '.join(words)} |")
    totals = ["/".join(str(systems[n]["counts"][word]) for word in WORDS) for n in systems]
    lines += [f"| | {'/'.join(WORDS)} | {' | '.join(totals)} |", ""]
    for name in systems:
        why = [
            f"- {id_} {cell['word']}: {cell['sentence']}"
            for id_, cell in systems[name]["cells"].items()
            if cell["word"] != "pass"
        ]
        if why:
            lines += [f"{LABELS[name]}:", "", *why, ""]
    return "\n".join(lines)
