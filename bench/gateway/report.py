"""The figures for people: a table on the terminal, a dated summary in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.gateway.figures import look

_ORDER = ("direct", "nginx", "tensorzero", "portkey", "litellm", "tidegate")
_NAMES = {
    "direct": "no gateway",
    "nginx": "nginx as proxy",
    "tensorzero": "TensorZero",
    "portkey": "Portkey",
    "litellm": "LiteLLM",
    "tidegate": "Tidegate",
}
CHAT_COLUMNS = (
    "system",
    "version",
    "CPU us/request",
    "gateway alone",
    "requests/s",
    "p50 ms",
    "p99 ms",
)
STREAM_COLUMNS = (
    "system",
    "first token added p50 ms",
    "p95 ms",
    "chunk delay added p50 ms",
    "p99 ms",
    "held back",
    "CPU us/answer",
)


def number(value: float | None) -> str:
    """Three significant digits, thousands with a comma, a dash for what was not measured."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.3f}"


def chat_rows(systems: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Plain requests: one row a system, and one for each case where a cache answers."""
    rows: list[tuple[str, ...]] = []
    for name in _ORDER:
        for case in ("miss", "hit"):
            if look(systems, name, case, "cpu_us") is None:
                continue
            label = _NAMES[name] + (f", {case}" if name == "tidegate" else "")
            rows.append(
                (
                    label,
                    str(systems[name]["version"]),
                    "-" if name == "direct" else number(look(systems, name, case, "cpu_us")),
                    number(look(systems, name, case, "cpu_us_by_group", "gateway")),
                    number(look(systems, name, case, "per_second")),
                    number(look(systems, name, case, "p50_ms")),
                    number(look(systems, name, case, "p99_ms")),
                )
            )
    return rows


def stream_rows(systems: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Streamed answers: what each system adds to the direct way, in the same round."""
    rows: list[tuple[str, ...]] = []
    for name in _ORDER:
        if look(systems, name, "stream", "held_back_share") is None:
            continue
        share = look(systems, name, "stream", "held_back_share") or 0.0
        added = "added_first_token_ms", "added_chunk_ms"
        rows.append(
            (
                _NAMES[name],
                number(look(systems, name, "stream", added[0], "p50")),
                number(look(systems, name, "stream", added[0], "p95")),
                number(look(systems, name, "stream", added[1], "p50")),
                number(look(systems, name, "stream", added[1], "p99")),
                f"{share:.2%}",
                "-" if name == "direct" else number(look(systems, name, "stream", "cpu_us")),
            )
        )
    return rows


def bar_rows(bars: Iterable[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    words = {True: "reached", False: "not reached", None: "not measured"}
    return [
        (
            bar["name"],
            number(bar["value"]) + (f" {bar['unit']}" if bar["value"] is not None else ""),
            f"{'at most' if bar['at_most'] else 'at least'} {number(bar['limit'])}",
            words[bar["reached"]],
        )
        for bar in bars
    ]


def memory_rows(memory: Mapping[str, Any] | None) -> list[tuple[str, ...]]:
    """Resident memory of the largest worker at each mark."""
    if not memory:
        return []
    return [
        (f"{mark['requests']:,}", f"{max(mark['resident_bytes'].values()) / 2**20:.1f}")
        for mark in memory["marks"]
        if mark["resident_bytes"]
    ]


def print_table(console: Console, title: str, columns: Iterable[str], rows: list[Any]) -> None:
    """A table with its first column to the left; nothing when there are no rows."""
    if not rows:
        return
    table = Table(title=title, title_justify="left")
    for position, column in enumerate(columns):
        table.add_column(column, justify="left" if position == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def show(result: Mapping[str, Any], console: Console) -> None:
    """Print the tables of a run."""
    systems = result["systems"]
    settings = result["settings"]
    print_table(
        console,
        f"Plain requests, {settings['connections']} connections",
        CHAT_COLUMNS,
        chat_rows(systems),
    )
    print_table(
        console,
        f"Streamed, {settings['stream_connections']} connections",
        STREAM_COLUMNS,
        stream_rows(systems),
    )
    print_table(
        console,
        "Resident memory of a Tidegate worker",
        ("requests", "MiB"),
        memory_rows(result.get("memory")),
    )
    print_table(
        console,
        "What it must reach",
        ("bar", "this run", "limit", "verdict"),
        bar_rows(result["bars"]),
    )


def markdown_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """The same table in Markdown."""
    columns = tuple(columns)
    lines = [columns, ("---", *["---:"] * (len(columns) - 1)), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _workers(result: Mapping[str, Any]) -> str:
    if "tidegate" not in result["systems"]:
        return ""
    count = result["settings"]["workers"]
    return f", {count} Tidegate worker{'s' if count > 1 else ''}"


def markdown(result: Mapping[str, Any]) -> str:
    """The dated summary of a run, for docs/benchmarks.md."""
    machine, settings, systems = result["machine"], result["settings"], result["systems"]
    parts = [
        f"### {result['date'][:10]}",
        f"{machine['cores']} cores of {machine['processor']}, {machine['system']}, Python "
        f"{machine['python']}; {settings['rounds']} rounds of {settings['seconds']:g} s, medians; "
        f"{machine['busy_cores_before']:.2f} cores were busy before the run, "
        f"{result['others_cores']:.2f} with other work during it.",
        f"Plain requests, {settings['connections']} connections{_workers(result)}:",
        markdown_table(CHAT_COLUMNS, chat_rows(systems)),
        f"Streamed, {settings['stream_connections']} connections:",
        markdown_table(STREAM_COLUMNS, stream_rows(systems)),
    ]
    for case in ("miss", "hit"):
        groups = systems.get("tidegate", {}).get(case, {}).get("cpu_us_by_group")
        if groups:
            shares = ", ".join(f"{name} {number(value)}" for name, value in groups.items())
            parts.append(f"Tidegate's {case} by process, CPU us a request: {shares}.")
    if "tidegate" in systems:
        idle = systems["tidegate"]["idle_cores"]
        parts.append(f"Idle, Tidegate's whole tree uses {idle:.1%} of a core.")
    if rows := memory_rows(result.get("memory")):
        parts += ["Resident memory of a worker:", markdown_table(("requests", "MiB"), rows)]
    if result["warnings"]:
        parts.append("Beware: " + "; ".join(result["warnings"]) + ".")
    parts.append(markdown_table(("bar", "this run", "limit", "verdict"), bar_rows(result["bars"])))
    return "\n\n".join(parts) + "\n"
