"""The ``tidegate`` command: finds the module of a command by its name and runs it.

Exit codes, the same for every command: 0 pass, 1 fail, 2 usage, 3 inconclusive.
"""

from __future__ import annotations

import importlib
import json
import sys

import click

from tidegate import __version__
from tidegate.base import TidegateError

COMMANDS = {
    "init": "write a working starter app",
    "check": "name every mistake in tidegate.yaml",
    "build": "freeze the app into one release digest",
    "models": "fetch and list pinned model artifacts",
    "up": "run the app's gateway, stores and models",
    "keys": "create, list and revoke gateway keys",
    "kill": "refuse a route, model, tool, tenant or long prompts",
    "cap": "hold requests shorter than the release says",
    "switches": "what is switched by hand, who changed it, what workers run",
    "flag": "exchange the flags that choose variants",
    "traffic": "divide a route's requests over releases",
    "secrets": "exchange a provider's keys while the gateway serves",
    "limits": "how much of each limit is used and left",
    "profile": "where each journey's time and money go",
    "receipts": "list, filter and show receipts",
    "mock": "run a simulated model server",
}
"""Command name to one line; the command itself is ``tidegate.cli.<name>:command``."""


class Commands(click.Group):
    """Loads the module of a command only when it is called, so that each starts quickly."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"tidegate.cli.{name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=Commands, epilog="Exit codes: 0 pass, 1 fail, 2 usage, 3 inconclusive.")
@click.version_option(__version__, prog_name="tidegate")
def root() -> None:
    """Tidegate hardens AI features: objectives met, cost held, traffic spikes survived."""


def main() -> None:
    """Run one command; a TidegateError becomes its message, its cure and its exit code."""
    try:
        root.main(standalone_mode=False)
    except TidegateError as error:
        if "--json" in sys.argv:
            click.echo(json.dumps({"error": error.to_json()}))
        else:
            click.secho(f"error: {error}", fg="red", err=True)
        sys.exit(error.exit)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
