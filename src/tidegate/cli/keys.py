"""``tidegate keys``: make, list and revoke the keys that the gateway lets in."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta

import click
import msgspec

from tidegate.base import UsageError, parse_duration
from tidegate.spec import locate
from tidegate.stores import connected
from tidegate.switches import Key, Priority, create_key, list_keys, revoke_key

_APP = click.argument("app", default=".", metavar="[APP]")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _word(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """A name or tenant: 1 to 64 printable characters."""
    if value is not None and not (0 < len(value.strip()) <= 64 and value.isprintable()):
        raise click.BadParameter("write 1 to 64 printable characters", context, option)
    return value and value.strip()


@click.group(
    epilog="\b\nExamples:\n"
    "  tidegate keys create --name web --tenant acme --expires 90d\n"
    "  tidegate keys revoke --key web"
)
def command() -> None:
    """Create, list and revoke gateway keys.

    Works while `tidegate up` runs (a change reaches the gateway within a second) and while it
    does not.
    """


@command.command(epilog="Example: tidegate keys create --name web --tenant acme --expires 90d")
@_APP
@click.option(
    "--name", required=True, callback=_word, help="Who will use it; shown in lists, never sent."
)
@click.option(
    "--tenant", callback=_word, help="Recorded on every receipt of this key; separates caches."
)
@click.option("--expires", help="How long it is good: 90d, 12h. Without: until it is revoked.")
@click.option(
    "--priority",
    type=click.Choice(["high", "normal", "low"]),
    default="normal",
    show_default=True,
    help="Who waits shorter in a route's queue. A request may lower it, not raise it.",
)
@_JSON
def create(
    app: str,
    name: str,
    tenant: str | None,
    expires: str | None,
    priority: Priority,
    as_json: bool,
) -> None:
    """Make a key and show its token: this once and never again."""
    ends = _end_of(expires)
    with connected(locate(app).parent.resolve()) as connection:
        made = create_key(connection, name=name, tenant=tenant, expires_at=ends, priority=priority)
    if as_json:
        click.echo(json.dumps({**msgspec.to_builtins(made.key), "token": made.token}))
        return
    click.echo(made.token)
    if sys.stdout.isatty():
        click.echo("Keep it now: only its hash is stored, it is not shown again.", err=True)


@command.command(name="list", epilog="Example: tidegate keys list examples/fitness --json")
@_APP
@_JSON
def list_(app: str, as_json: bool) -> None:
    """List the keys, revoked ones included; never a token."""
    with connected(locate(app).parent.resolve()) as connection:
        keys = list_keys(connection)
    if as_json:
        click.echo(json.dumps({"keys": msgspec.to_builtins(keys)}))
    elif not keys:
        click.echo("no keys; make one: tidegate keys create --name web")
    else:
        _print_table(keys)


@command.command(epilog="Example: tidegate keys revoke --name web")
@_APP
@click.option("--key", "which", help="Id of the key, or its name when only one active key has it.")
@click.option("--name", help="The same, by name.")
@_JSON
def revoke(app: str, which: str | None, name: str | None, as_json: bool) -> None:
    """Revoke a key: gateways refuse it within a second."""
    if (wanted := which or name) is None:
        raise UsageError(
            "key_not_named", "which key?", cure="add --key ID or --name NAME (see keys list)"
        )
    with connected(locate(app).parent.resolve()) as connection:
        key = revoke_key(connection, wanted)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(key)))
    else:
        click.echo(f"revoked {key.name} ({key.id})")


def _end_of(expires: str | None) -> datetime | None:
    if expires is None:
        return None
    try:
        if (seconds := parse_duration(expires)) <= 0:
            raise ValueError(f"a key that is good for {expires} would let nobody in")
        return datetime.now(UTC) + timedelta(seconds=seconds)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            "expires_invalid", f"--expires: {error}", cure="write 90d or 12h"
        ) from None


def _print_table(keys: tuple[Key, ...]) -> None:
    from tidegate.cli.pictures import print_table, table_of

    table = table_of("id", "name", "tenant", "status", "priority", "created", "expires")
    for key in keys:
        end = key.expires_at.strftime("%Y-%m-%d %H:%M") if key.expires_at else "never"
        created = key.created_at.strftime("%Y-%m-%d %H:%M")
        table.add_row(key.id, key.name, key.tenant or "", key.status, key.priority, created, end)
    print_table(table)
