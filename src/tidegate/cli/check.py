"""``tidegate check``: every mistake in the spec with its place, what was expected, what is near."""

from __future__ import annotations

import json
import os
import sys

import click
import msgspec

from tidegate.base import SpecError
from tidegate.spec import Mistake, Notice, load, schema_text


@click.command(
    epilog="""\b
Examples:
  tidegate check                     the app in this folder
  tidegate check examples/fitness
  tidegate check --schema > .tidegate/tidegate.schema.json

\b
JSON: {"ok": bool, "mistakes": [...], "notices": [...]}. A mistake has file, line,
column (from 1), path, message, expected, nearest and source (the line itself);
a notice has the first five. Notices are given when there is no mistake.

Exit codes: 0 no mistake, 1 mistakes, 2 no app there."""
)
@click.argument("app", default=".")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--schema", is_flag=True, help="Print the JSON Schema of tidegate.yaml, for editors, and end."
)
def command(app: str, as_json: bool, schema: bool) -> None:
    """Name every mistake in the spec of APP (a folder with tidegate.yaml, or the file)."""
    if schema:
        click.echo(schema_text(), nl=False)
        return
    mistakes: tuple[Mistake, ...] = ()
    notices: tuple[Notice, ...] = ()
    try:
        notices = load(app, os.environ).notices
    except SpecError as error:
        mistakes = tuple(m for m in error.mistakes if isinstance(m, Mistake))
    if as_json:
        found = {"ok": not mistakes, "mistakes": mistakes, "notices": notices}
        click.echo(json.dumps(msgspec.to_builtins(found)))
    else:
        print_found(mistakes, notices)
    sys.exit(1 if mistakes else 0)


def print_found(mistakes: tuple[Mistake, ...], notices: tuple[Notice, ...]) -> None:
    """Mistakes under their lines, then notices, then how many; for every command that checks."""
    for mistake in mistakes:
        place = click.style(f"{mistake.file}:{mistake.line}:{mistake.column}", bold=True)
        click.echo(f"{place}  {click.style(mistake.message, fg='red')}")
        for line in _excerpt(mistake):
            click.echo(f"    {line}")
        if mistake.expected:
            click.echo(f"    expected: {mistake.expected}")
        if mistake.nearest:
            click.secho(f"    did you mean {mistake.nearest}?", fg="green")
    print_notices(notices)
    count = _count(len(mistakes), "mistake")
    if notices:
        count += f", {_count(len(notices), 'notice')}"
    click.secho(count, fg="red" if mistakes else "green", bold=True)


def print_notices(notices: tuple[Notice, ...], *, err: bool = False) -> None:
    """A line for each notice; ``err``: beside the output of a command that gives something else."""
    for notice in notices:
        click.secho(f"{notice.file}:{notice.line}:{notice.column}  ", nl=False, dim=True, err=err)
        click.echo(f"notice: {notice.path}: {notice.message}", err=err)


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _excerpt(mistake: Mistake, *, width: int = 96) -> list[str]:
    """The line of the file and a caret under its column; a long line is cut around it."""
    line = "".join(letter if letter.isprintable() else " " for letter in mistake.source)
    if not line.strip():
        return []
    at = min(mistake.column - 1, len(line))
    start = max(0, at - width * 2 // 3) if len(line) > width else 0
    margin = min(len(line) - len(line.lstrip()), at) if start == 0 else start
    return [line[margin : margin + width].rstrip(), " " * (at - margin) + "^"]
