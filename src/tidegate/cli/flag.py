"""``tidegate flag``: exchange the flags that choose variants, and ask what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import msgspec

from tidegate.base import UsageError, read_runtime
from tidegate.cli.flip import Flip, switch_options
from tidegate.registry import load_release
from tidegate.spec import locate
from tidegate.stores import connected
from tidegate.switches import (
    FlagVersion,
    flag_document,
    list_flags,
    rollback_flags,
    set_flags,
)

_APP = click.option("--app", default=".", metavar="APP", help="The app's folder.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(
    epilog="\b\nExamples:\n"
    "  tidegate flag set flags.json\n"
    "  tidegate flag eval recommend-model --context targetingKey=user-1\n"
    "  tidegate flag rollback"
)
def command() -> None:
    """Exchange the flags (a flagd document) that choose variants of routes, without a release.

    One document is in force at a time: the one set last, or else the one that the release pins.
    """


@command.command(
    name="set",
    epilog="\b\nExample: tidegate flag set flags.json --reason 'large for half of all'\n"
    "Exit codes: 0 in force in every worker, 1 not in all of them, 2 the document is not sound.",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_APP
@switch_options
def set_(file: Path, app: str, flip: Flip) -> None:
    """Put the flagd document FILE in force, and wait until every worker runs it.

    It is checked first: what flagd would answer with a guess is refused, and the flags in force
    stay.
    """
    from tidegate.switches import HASH_FORM, check, require_form

    body = _text(file)
    check(body)
    require_form(HASH_FORM)
    flip(app, lambda connection, author: set_flags(connection, body, HASH_FORM, author))


@command.command(
    epilog="\b\nExample: tidegate flag rollback --to 3\n"
    "Exit codes: 0 in force in every worker, 1 not in all of them, 2 there is no such document."
)
@click.option("--to", type=click.IntRange(min=0), help="Number of a document; 0: the release's.")
@_APP
@switch_options
def rollback(to: int | None, app: str, flip: Flip) -> None:
    """Put the document before the present one in force again, or the one named."""
    flip(app, lambda connection, author: rollback_flags(connection, to, author))


@command.command(name="list", epilog="Example: tidegate flag list --json")
@_APP
@_JSON
def list_(app: str, as_json: bool) -> None:
    """List the documents that were ever set, the newest first."""
    with connected(locate(app).parent.resolve()) as connection:
        found = list_flags(connection)
    if as_json:
        click.echo(json.dumps({"documents": msgspec.to_builtins(found)}))
    elif not found:
        click.echo("no flags were set; those that the release pins are in force")
    else:
        _print_table(found)


@command.command(
    name="eval",
    epilog="\b\nExample: tidegate flag eval recommend-model --context targetingKey=user-1\n"
    "Exit codes: 0 a variant, 1 the evaluation failed, 2 there is no such flag.",
)
@click.argument("key")
@click.option(
    "--context",
    "pairs",
    multiple=True,
    metavar="K=V",
    help="What is known of the request; targetingKey is the user. A value may be JSON.",
)
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Ask this document instead of the one in force.",
)
@_APP
@_JSON
def eval_(key: str, pairs: tuple[str, ...], file: Path | None, app: str, as_json: bool) -> None:
    """Say which variant of the flag KEY a request gets, and why."""
    from tidegate.switches import Flags

    where, body = (str(file), _text(file)) if file else _in_force(app)
    flags = Flags(body)
    if key not in flags.names():
        raise UsageError(
            "flag_unknown",
            f"there is no flag {key} in {where}",
            cure=f"its flags are: {', '.join(sorted(flags.names())) or 'none'}",
        )
    context = dict(_pair(text) for text in pairs)
    user = context.pop("targetingKey", None)
    found = flags.resolve(key, None if user is None else str(user), context)
    if as_json:
        told = {"flag": key, "variant": found.variant, "reason": found.reason, "document": where}
        click.echo(json.dumps(told))
    else:
        click.echo(f"{found.variant or 'no variant'} ({found.reason}, {where})")
    if found.reason == "ERROR":
        raise SystemExit(1)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "flags_invalid", f"{file} cannot be read as UTF-8 text: {error}", cure="mend the file"
        ) from None


def _in_force(app: str) -> tuple[str, str]:
    """Which document is in force for the running app, and its text."""
    folder = locate(app).parent.resolve()
    with connected(folder) as connection:
        found = flag_document(connection, None)
    if found is not None:
        return f"document {found.number}", found.body
    runtime = read_runtime(folder)
    pinned = load_release(runtime.registry, runtime.release).flags
    if pinned is None:
        raise UsageError(
            "flags_unknown",
            "no flags are in force: none were set, and the release pins none",
            cure="set some: tidegate flag set FILE",
        )
    return f"the release's {pinned.file.path}", pinned.document


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r} is not K=V", param_hint="--context")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _print_table(found: tuple[FlagVersion, ...]) -> None:
    from tidegate.cli.pictures import print_table, table_of

    table = table_of("document", "flags", "set", "by", "reason", "")
    for one in found:
        made = one.made_at.strftime("%Y-%m-%d %H:%M")
        state = "in force" if one.in_force else ""
        table.add_row(str(one.number), str(one.flags), made, one.made_by, one.reason or "", state)
    print_table(table)
