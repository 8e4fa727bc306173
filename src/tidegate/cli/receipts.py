"""``tidegate receipts``: list, filter and show receipts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import get_args

import click
import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from tidegate.base import format_duration
from tidegate.cli.pictures import bar, money, plain_console, shorten
from tidegate.cli.profile import parse_window
from tidegate.ledger import (
    STAGES,
    Attempt,
    Kept,
    Purpose,
    Receipt,
    ReceiptFilter,
    cost_is_unknown,
    find_receipts,
    one_receipt,
    reading,
    tidy,
)
from tidegate.spec import SPEC_FILE, locate
from tidegate.stores import database_for

_SHORT = 16
"""Digits of an id in a list: a millisecond and 12 random bits."""
_NUMBERS = ("total", "tokens", "cost")
_WIDTHS = {"id": _SHORT, "at": 8, "total": 6, "cost": 7, "tokens": 6}
_FLEXIBLE = {"route": 12, "journey": 12, "model": 13, "status": 12}
"""Columns that take what the terminal has beyond 80 (or, with journey and model, 115); the status,
whose code says what went wrong, also takes what the others leave."""
_WIDE = 115


@click.command(
    epilog="""\b
Examples:
  tidegate receipts examples/fitness --journey get-plan --status 5xx
  tidegate receipts --since 1h --tenant acme --json
  tidegate receipts --release 3f9c --purpose user --outcome failed
  tidegate receipts . 019abc12d3e47f01 --content
With --json a list is one object a line. Exit codes: 0 shown, 1 the ledger cannot be read,
2 usage or no such receipt."""
)
@click.argument("arguments", nargs=-1, metavar="[APP] [ID]")
@click.option("--release", help="Only this release: its digest, or how it begins.")
@click.option("--variant", help="Only this variant of a flag.")
@click.option(
    "--purpose",
    type=click.Choice(get_args(Purpose)),
    help="Only requests made for this: user, or the gateway's own checks.",
)
@click.option("--route", help="Only this route.")
@click.option("--journey", help="Only this journey.")
@click.option("--tenant", help="Only this tenant.")
@click.option("--model", help="Only answers of this model.")
@click.option(
    "--outcome",
    type=click.Choice(["served", "refused", "failed", "upstream_cut", "client_gone"]),
    help="Only this outcome.",
)
@click.option("--status", help="Only this HTTP status: 404, or 4xx.")
@click.option("--code", help="Only this error code.")
@click.option("--trace", help="Only this trace id.")
@click.option("--provider-key", help="Only what tried this key of a provider: its fingerprint.")
@click.option("--since", help="Not older than: 10m, 24h.")
@click.option("--limit", default=20, show_default=True, help="At most so many, newest first.")
@click.option("--content", is_flag=True, help="Show the prompt and the answer of ID.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; times in milliseconds.")
def command(
    arguments: tuple[str, ...],
    since: str | None,
    limit: int,
    content: bool,
    as_json: bool,
    **fields: str | None,
) -> None:
    """List receipts, newest first, or show the one with ID whole."""
    app, reference = _split(arguments)
    wanted = ReceiptFilter(
        since=None if since is None else parse_window(since, "--since"), limit=limit, **fields
    )
    with database_for(locate(app).parent.resolve()) as url, reading(url) as connection:
        if reference is not None:
            kept = one_receipt(connection, reference)
        else:
            found = find_receipts(connection, wanted)
    if reference is not None:
        _show_one(kept, content, as_json)
    elif as_json:
        for receipt in found:
            click.echo(msgspec.json.encode(receipt))
    else:
        _show_list(found)


def _split(arguments: tuple[str, ...]) -> tuple[str, str | None]:
    """APP and ID: one argument alone is an app when a folder or file of that name has one."""
    if len(arguments) > 2:
        raise click.UsageError("give at most an app and one id")
    if len(arguments) == 2:
        return arguments
    if len(arguments) == 1:
        path = Path(arguments[0])
        alone = path.is_file() or (path / SPEC_FILE).is_file() or path.is_dir()
        looks_like_id = all(c in "0123456789abcdef-" for c in arguments[0].lower())
        return (arguments[0], None) if alone or not looks_like_id else (".", arguments[0])
    return ".", None


def _show_list(receipts: list[Receipt]) -> None:
    console = plain_console()
    if not receipts:
        console.print("No receipts match.", style="dim")
        return
    wide = console.width >= _WIDE
    spare = max(0, console.width - (_WIDE if wide else 80)) // (4 if wide else 2)
    between = ("journey", "model") if wide else ()
    names = ("id", "at", "route", *between, "status", *_NUMBERS, "cache")
    rows = [_list_cells(receipt, wide) for receipt in receipts]
    most = {name: width + spare for name, width in _FLEXIBLE.items()}
    most["status"] = max(most["status"], _left_for("status", names, rows, most, console.width))
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    for name in names:
        right = name in _NUMBERS
        table.add_column(
            name,
            justify="right" if right else "left",
            no_wrap=True,
            overflow="ellipsis",
            min_width=_WIDTHS.get(name),
            max_width=most.get(name),
        )
    for receipt, row in zip(receipts, rows, strict=True):
        table.add_row(*row, style="" if receipt.status < 400 else "red")
    console.print(table)


def _left_for(
    name: str,
    names: tuple[str, ...],
    rows: list[tuple[str, ...]],
    most: dict[str, int],
    width: int,
) -> int:
    """Characters of ``width`` that the other columns leave to the column ``name``."""
    left = width - 1
    for other, *cells in zip(names, *rows, strict=True):
        if other != name:
            longest = max(_WIDTHS.get(other, 0), *(cell_len(text) for text in (other, *cells)))
            left -= min(longest, most.get(other, longest)) + 1
    return left


def _list_cells(r: Receipt, wide: bool) -> tuple[str, ...]:
    tokens = "" if r.usage is None else f"{r.usage.prompt}+{r.usage.completion}"
    return (
        r.id[:_SHORT],
        time.strftime("%H:%M:%S" if time.time() - r.at < 43200 else "%m-%d %H:%M", _local(r.at)),
        shorten(r.route or "-"),
        *((shorten(r.journey or "-"), shorten(r.model or "-")) if wide else ()),
        f"{r.status}" + (f" {shorten(r.code)}" if r.code else ""),
        format_duration(r.total / 1e3),
        tokens + ("~" if r.usage and r.usage.estimated else ""),
        _cost(r),
        r.cache if r.cache != "off" else "-",
    )


def _cost(receipt: Receipt) -> str:
    if receipt.cost is None:
        return "unknown" if cost_is_unknown(receipt) else "-"
    return money(receipt.cost)


def _local(at: float) -> time.struct_time:
    return time.localtime(at)


def _show_one(kept: Kept, content: bool, as_json: bool) -> None:
    if as_json:
        body = msgspec.to_builtins(kept)
        if not content:
            del body["request"], body["response"]
        click.echo(msgspec.json.format(msgspec.json.encode(body)).decode())
        return
    console = plain_console()
    console.print(_facts(kept))
    console.print()
    console.print(_stage_table(kept.receipt))
    if kept.receipt.attempts:
        console.print()
        console.print(_attempt_table(kept.receipt))
    if content:
        _show_content(console, "request", kept.request_sha, kept.request)
        _show_content(console, "response", kept.response_sha, kept.response)
    elif kept.request_sha or kept.response_sha:
        console.print()
        console.print(Text("Its content is kept: show it with --content.", style="dim"))


def _facts(kept: Kept) -> Table:
    r = kept.receipt
    usage = "-"
    if r.usage is not None:
        extra = [f"{n} {what}" for n, what in _extra_tokens(kept) if n]
        usage = f"{r.usage.prompt} in, {r.usage.completion} out" + "".join(f", {e}" for e in extra)
        usage += " (estimated)" if r.usage.estimated else ""
    elif r.replayed is not None:
        usage = f"none billed; replayed {r.replayed.prompt} in, {r.replayed.completion} out"
    moment = time.strftime("%Y-%m-%d %H:%M:%S", _local(r.at)) + f".{int(r.at % 1 * 1000):03d}"
    facts = {
        "id": r.id,
        "at": moment,
        "answer": f"{r.status} {r.outcome}" + (f", {r.code}" if r.code else ""),
        "kind": f"{r.kind}{', streamed' if r.stream else ''}",
        "route": r.route or "-",
        "model": r.model or "-",
        **({"served by": r.served_by} if r.served_by else {}),
        "journey": r.journey or "-",
        "tenant": r.tenant or "-",
        "key": r.key or "-",
        "finish": r.finish or "-",
        "tokens": usage,
        "cost": _cost(r),
        "cache": r.cache,
        **({"capped": r.capped} if r.capped else {}),
        **({"variant": _variant(r)} if r.variant_reason else {}),
        "first token": "-" if r.first_token is None else format_duration(r.first_token / 1e3),
        "total": format_duration(r.total / 1e3),
        "trace": r.trace or "-",
        "release": r.release or "-",
        **({"purpose": r.purpose} if r.purpose != "user" else {}),
        **{f"why {stage}": words for stage, words in r.reasons.items()},
    }
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, tidy(value))
    return table


def _variant(r: Receipt) -> str:
    return f"{r.variant or 'none'} ({r.variant_reason})"


def _extra_tokens(kept: Kept) -> tuple[tuple[int, str], ...]:
    usage = kept.receipt.usage
    return () if usage is None else ((usage.cached, "cached"), (usage.reasoning, "reasoning"))


def _stage_table(receipt: Receipt) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("stage", min_width=8)
    table.add_column("time", justify="right")
    table.add_column("share", justify="right")
    table.add_column("")
    whole = max(receipt.total, sum(receipt.stages.values())) or 1.0
    for stage in (*STAGES, *(s for s in receipt.stages if s not in STAGES)):
        if (ms := receipt.stages.get(stage)) is not None:
            table.add_row(stage, format_duration(ms / 1e3), f"{ms / whole:.1%}", bar(ms / whole))
    if receipt.queued is not None and "queue" not in receipt.stages:
        ms = receipt.queued  # of a gateway that booked the wait under no stage
        table.add_row("queue", format_duration(ms / 1e3), f"{ms / whole:.1%}", bar(ms / whole))
    return table


def _attempt_table(receipt: Receipt) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("attempt", "model", "key", "waited", "time", "status", "code", "note"):
        table.add_column(name, justify="right" if name in ("waited", "time") else "left")
    for number, attempt in enumerate(receipt.attempts, start=1):
        table.add_row(
            str(number),
            shorten(attempt.model),
            attempt.key or "-",
            format_duration(attempt.waited / 1e3) if attempt.waited else "-",
            format_duration(attempt.ms / 1e3),
            str(attempt.status or "-"),
            shorten(attempt.code or "-"),
            _attempt_note(attempt),
        )
    return table


def _attempt_note(attempt: Attempt) -> str:
    """What it is billed besides the answer, and what of it nobody could read."""
    notes = []
    if attempt.usage is not None:
        about = "about " if attempt.usage.estimated else ""
        notes.append(f"{about}{attempt.usage.prompt} + {attempt.usage.completion} tokens")
    if attempt.skipped:
        notes.append(f"{attempt.skipped} unreadable events passed over")
    return ", ".join(notes) or "-"


def _show_content(console: Console, name: str, sha: str | None, body: str | None) -> None:
    console.print()
    console.print(Text(f"{name}{'' if sha is None else f'  sha256 {sha[:12]}'}", style="bold"))
    if body is None:
        why = "none was kept" if sha is None else "it is past its retention"
        console.print(Text(why, style="dim"))
        return
    try:
        pretty = msgspec.json.format(body)
    except (msgspec.DecodeError, RecursionError):
        console.print(Text("\n".join(tidy(line, len(line)) for line in body.splitlines())))
        return
    console.print(Syntax(pretty, "json", word_wrap=True, background_color="default"))
