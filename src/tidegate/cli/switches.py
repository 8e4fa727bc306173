"""``tidegate switches``: what is switched by hand, who changed what, and what each worker runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click
import msgspec

from tidegate.spec import locate
from tidegate.stores import connected
from tidegate.switches import (
    Cap,
    Change,
    Kill,
    SwitchSnapshot,
    Worker,
    list_changes,
    list_workers,
    snapshot,
)


@click.command(
    epilog="""\b
Examples:
  tidegate switches
  tidegate switches examples/fitness --changes 100 --json
Exit codes: 0 shown, 1 the database cannot be read, 2 usage."""
)
@click.argument("app", default=".", metavar="[APP]")
@click.option(
    "--changes",
    "most",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="How many changes to list, the newest first.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(app: str, most: int, as_json: bool) -> None:
    """Show what is switched by hand, the last changes, and which version each worker runs."""
    with connected(locate(app).parent.resolve()) as connection:
        now, changes = snapshot(connection), list_changes(connection, most)
        workers = list_workers(connection)
    if as_json:
        click.echo(json.dumps(_as_json(now, changes, workers)))
        return
    click.echo(f"version {now.version}")
    for line in list(_lines(now)) or ["  nothing is switched by hand"]:
        click.echo(line)
    for worker in workers:
        click.secho(f"  {_worker(worker, now.version)}", fg=None if worker.live else "yellow")
    if not workers:
        click.echo("  no worker was heard of in the last hour")
    if changes:
        _print_changes(changes)


def _as_json(
    now: SwitchSnapshot, changes: tuple[Change, ...], workers: tuple[Worker, ...]
) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(
        {
            "version": now.version,
            "kills": now.kills,
            "caps": now.caps,
            "traffic": now.traffic,
            "flags": None if now.flags is None else now.flags.number,
            "secrets": now.secrets,
            "changes": changes,
        }
    )
    told["workers"] = [{**msgspec.to_builtins(one), "live": one.live} for one in workers]
    return told


def _lines(now: SwitchSnapshot) -> Iterator[str]:
    for kill in now.kills:
        yield f"  killed: {_killed(kill)}{_why(kill.reason)}"
    for cap in now.caps:
        yield f"  capped: {_capped(cap)}{_why(cap.reason)}"
    for one in now.traffic:
        yield f"  weighed: {one.route or 'every route'}, {one.release[7:19]} {one.weight}%"
    for key in now.secrets:
        if key.state in ("canary", "draining"):
            share = f" for {key.share:.0%}" if key.state == "canary" else ""
            yield f"  key {key.fingerprint} of secret {key.secret}: {key.state}{share}"
    if now.flags is not None:
        yield f"  flags: document {now.flags.number}"


def _killed(kill: Kill) -> str:
    if kill.kind != "prompts":
        return f"{kill.kind} {kill.name}"
    return f"prompts of more than {kill.tokens} tokens, {kill.name or 'every route'}"


def _capped(cap: Cap) -> str:
    parts = [cap.route or "every route"]
    if cap.prompt_tokens is not None:
        parts.append(f"prompts {cap.prompt_tokens} tokens")
    if cap.output_tokens is not None:
        parts.append(f"answers {cap.output_tokens} tokens")
    if cap.surge is not None:
        parts.append(f"surge {cap.surge}")
    return ", ".join(parts)


def _why(reason: str | None) -> str:
    return f" ({reason})" if reason else ""


def _worker(worker: Worker, version: int) -> str:
    if not worker.live:
        return f"{worker}: not heard of for {worker.silent:.0f} s"
    if worker.version is None:
        return f"{worker}: starts"
    behind = "" if worker.version >= version else f", behind version {version}"
    wrong = f", but {worker.error}" if worker.error else ""
    deaf = "" if worker.listening else "; notifications do not reach it, so it polls"
    return f"{worker}: runs version {worker.version}{behind}{wrong}{deaf}"


def _print_changes(changes: tuple[Change, ...]) -> None:
    from tidegate.cli.pictures import print_table, table_of

    table = table_of("version", "at", "by", "what", "from", "to", "reason")
    for one in changes:
        at = one.at.strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(
            str(one.version), at, one.by, one.what, _value(one.old), _value(one.new), one.reason
        )
    print_table(table)


_SHOWN = {"kind", "name", "route", "secret", "fingerprint", "reason"}
"""Fields that the name of a change shows already."""


def _value(value: Any) -> str:
    """The values that were set, without empty ones and those that ``what`` shows already."""
    if isinstance(value, dict):
        told = {k: v for k, v in value.items() if v not in (None, "") and k not in _SHOWN}
        return ", ".join(f"{k} {v}" for k, v in told.items())
    return "" if value is None else str(value)
