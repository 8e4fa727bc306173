"""``tidegate profile``: where each journey's time and money go."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import get_args

import click
import msgspec
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from tidegate.base import StoreError, UsageError, parse_duration
from tidegate.cli.pictures import draw_profile, plain_console
from tidegate.ledger import Connection, Profile, Purpose, profile, reading, require_content
from tidegate.spec import locate
from tidegate.stores import database_for

_REFRESH = 2.0


@click.command(
    epilog="""\b
Examples:
  tidegate profile examples/fitness
  tidegate profile --window 24h --journey get-plan
  tidegate profile --release 3f9c --route recommend
  tidegate profile --live
A stage's times are its own, without the app stages inside it. The gateway's stages stand under the
app stage that sent the requests and are part of its times. Quantiles are within 1%. Works whether
the app runs or not. Exit codes: 0 shown, 1 nothing to show, 2 usage."""
)
@click.argument("app", default=".", metavar="[APP]")
@click.option("--window", default="15m", show_default=True, help="How far back: 15m, 24h, 7d.")
@click.option("--journey", help="Only this journey and the requests made for it.")
@click.option("--route", help="Only this route of the gateway.")
@click.option(
    "--release", help="Only this release (how its digest begins), of the gateway's routes."
)
@click.option("--variant", help="Only this variant of a flag, of the gateway's routes.")
@click.option(
    "--purpose",
    type=click.Choice(get_args(Purpose)),
    default="user",
    show_default=True,
    help="Whose requests: those of users, or the gateway's own checks.",
)
@click.option("--live", is_flag=True, help="Refresh every 2 seconds until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; times in milliseconds.")
def command(
    app: str,
    window: str,
    live: bool,
    as_json: bool,
    journey: str | None,
    route: str | None,
    release: str | None,
    variant: str | None,
    purpose: Purpose,
) -> None:
    """Show P50, P95 and P99 of each journey and stage, tokens, cost and cache hits."""
    seconds = parse_window(window)
    if live and as_json:
        raise UsageError(
            "live_json", "--live and --json do not go together", cure="leave one of them out"
        )

    def look(connection: Connection) -> Profile:
        return profile(
            connection,
            seconds,
            journey=journey,
            route=route,
            release=release,
            variant=variant,
            purpose=purpose,
        )

    with database_for(locate(app).parent.resolve()) as url:
        if live:
            _watch(url, look)
            return
        with reading(url) as connection:
            found = look(connection)
            require_content(found, connection)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        plain_console().print(draw_profile(found))


def parse_window(text: str, option: str = "--window") -> float:
    """Seconds in ``text``; UsageError ``window_invalid``."""
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise UsageError(
            "window_invalid", f"{option}: {error}", cure=f"write for example {option} 15m"
        ) from None
    if seconds <= 0:
        raise UsageError(
            "window_invalid", f"{option} {text} is no time", cure=f"write {option} 15m"
        )
    return seconds


def _watch(url: str, ask: Callable[[Connection], Profile]) -> None:
    def look() -> Profile:
        with reading(url) as connection:
            return ask(connection)

    def picture() -> RenderableType:
        try:
            return draw_profile(look())
        except StoreError as error:  # it may come back: keep looking
            return Text(str(error), style="red")

    with Live(
        draw_profile(look()), console=plain_console(), auto_refresh=False, screen=False
    ) as screen:
        while True:
            time.sleep(_REFRESH)
            screen.update(picture(), refresh=True)
