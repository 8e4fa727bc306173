"""The end of every command that changes a switch: write it, wait for acknowledgements, print."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import Any

import click
import msgspec
import psycopg
from psycopg import sql

from tidegate.base import parse_duration
from tidegate.spec import locate
from tidegate.stores import connected
from tidegate.switches import ACKS, Author, Change, ChangeOutcome, wait_acknowledged

Make = Callable[[psycopg.Connection, Author], Change]


class Flip:
    """One change of a switch, from its options to what is printed."""

    def __init__(self, reason: str | None, within: float, as_json: bool) -> None:
        self._reason = reason
        self._within = within
        self.as_json = as_json

    def __call__(self, app: str, make: Make) -> None:
        """Make the change, wait, and print. Ends the process with 1 when a live worker does not
        run all of it."""
        with connected(locate(app).parent.resolve()) as connection:
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(ACKS)))
            change = make(connection, Author(reason=self._reason))
            try:
                outcome = wait_acknowledged(connection, change, self._within)
            except KeyboardInterrupt:
                words = f"version {change.version}, {change.what}, is made and stays"
                click.echo(f"{words}; who runs it: tidegate switches", err=True)
                raise
        if self.as_json:
            told = {"change": change, "complete": outcome.complete, **_by_name(outcome)}
            click.echo(json.dumps(msgspec.to_builtins(told)))
        else:
            _print(change, outcome, self._within)
        if not outcome.complete:
            sys.exit(1)


def switch_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options of every command that changes a switch; the command is given them as ``flip``."""

    @click.option("--reason", help="Why, for the record.")
    @click.option(
        "--wait",
        "within",
        default="10s",
        show_default=True,
        callback=_seconds,
        help="How long to wait for the workers.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON; milliseconds.")
    @functools.wraps(command)
    def wrapped(reason: str | None, within: float, as_json: bool, **others: Any) -> None:
        command(flip=Flip(reason, within, as_json), **others)

    return wrapped


def _seconds(context: click.Context, option: click.Parameter, value: str) -> float:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from None


def _by_name(outcome: ChangeOutcome) -> dict[str, Any]:
    return {name: getattr(outcome, name) for name in ("acknowledged", "failed", "missing", "lost")}


def _print(change: Change, outcome: ChangeOutcome, within: float) -> None:
    click.echo(f"version {change.version}: {change.what}")
    for done in outcome.acknowledged:
        click.echo(f"  in force in {done.worker} after {done.ms:g} ms")
    for worker in outcome.failed:
        click.secho(f"  in force in {worker}, but: {worker.error}", fg="red")
    for worker in outcome.missing:
        click.secho(f"  not reached within {within:g} s: {worker}", fg="red")
    if outcome.missing:
        click.echo("  what was not reached runs it once it answers; see: tidegate switches")
    for worker in outcome.lost:
        click.secho(f"  silent for {worker.silent:.0f} s, not waited for: {worker}", fg="yellow")
    if not (outcome.acknowledged or outcome.failed or outcome.missing):
        click.echo("  no worker runs; it is in force from the next start on")
