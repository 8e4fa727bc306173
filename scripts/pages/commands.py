"""``docs/commands.md``: the help of every command that exists."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import click

from tidegate.cli.main import COMMANDS, root

HEAD = """# Commands

Every command prints for people, and with `--json` for programs. Exit codes: 0 pass, 1 fail, 2
usage, 3 inconclusive. `APP` is a folder that holds `tidegate.yaml`, or the file; left out: this
folder.
"""


def page() -> str:
    parts = [HEAD]
    for name, line in COMMANDS.items():
        if importlib.util.find_spec(f"tidegate.cli.{name}") is None:
            continue
        command = root.get_command(click.Context(root), name)
        assert command is not None
        parts.append(f"## `tidegate {name}`\n\n{line[0].upper()}{line[1:]}.\n")
        parts += [f"```text\n{text}\n```\n" for text in _helps(command, f"tidegate {name}")]
    return "\n".join(parts)


def _helps(command: click.Command, name: str) -> Iterator[str]:
    context = click.Context(command, info_name=name, terminal_width=88, max_content_width=88)
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield text.rstrip()
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            child = command.get_command(context, below)
            if child is not None and not child.hidden:
                yield from _helps(child, f"{name} {below}")
