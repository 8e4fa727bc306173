"""``tidegate kill``: refuse a route, a model, a tool, a tenant or long prompts, at once."""

from __future__ import annotations

from collections.abc import Callable

import click
import psycopg

from tidegate.base import UsageError
from tidegate.cli.flip import Flip, switch_options
from tidegate.cli.known import Killed, require_known
from tidegate.switches import EVERY, Author, Change, Kill, KillKind, kill, lift_kill

_APP = click.option("--app", default=".", metavar="APP", help="The app's folder.")
_OFF = click.option("--off", is_flag=True, help="Lift it: serve again.")
_FORCE = click.option("--force", is_flag=True, help="Though nothing that is served has this name.")
_CODES = "Exit codes: 0 in force in every worker, 1 not in all of them (they are named), 2 usage."

_WHAT: dict[Killed, str] = {
    "route": "Refuse the requests for route NAME: 503 route_killed.",
    "model": "Ask model NAME no more; its fallbacks stand in, without one: 503 model_killed.\n\n"
    "What it answered before is not served from the cache either.",
    "tool": "Offer tool NAME to no model; who insists on it is refused: 503 tool_killed.",
    "tenant": "Refuse the requests of tenant NAME: 403 tenant_killed.",
}


@click.group(
    epilog="\b\nExamples:\n"
    "  tidegate kill route recommend --reason 'wrong doses'\n"
    "  tidegate kill model large\n"
    "  tidegate kill prompts --over 2000 --route recommend\n"
    "  tidegate kill route recommend --off\n" + _CODES
)
def command() -> None:
    """Refuse a route, a model, a tool, a tenant or long prompts, from the next request on.

    Waits until every live worker has acknowledged, and prints each with its milliseconds. What is
    under way is finished. `tidegate switches` shows what is killed.
    """


def _named(kind: Killed) -> click.Command:
    @click.argument("name")
    @_OFF
    @_FORCE
    @_APP
    @switch_options
    def change(name: str, off: bool, force: bool, app: str, flip: Flip) -> None:
        if not (off or (force and name)):
            require_known(app, kind, name)
        flip(app, _lift(kind, name) if off else _kill(kind, name))

    example = f"Example: tidegate kill {kind} NAME --reason 'incident 12'"
    return click.command(name=kind, help=_WHAT[kind], epilog=f"\b\n{example}\n{_CODES}")(change)


for _kind in _WHAT:
    command.add_command(_named(_kind))


@command.command(
    epilog="\b\nExamples:\n  tidegate kill prompts --over 2000\n"
    "  tidegate kill prompts --route recommend --off\n" + _CODES
)
@click.option("--over", type=click.IntRange(min=0), help="Refuse prompts of more tokens than this.")
@click.option("--route", default=EVERY, help="Only of this route; without, of all.")
@_OFF
@_FORCE
@_APP
@switch_options
def prompts(over: int | None, route: str, off: bool, force: bool, app: str, flip: Flip) -> None:
    """Refuse long prompts: 403 prompt_killed."""
    if (over is None) != off:
        raise UsageError(
            "tokens_not_named",
            "how long may a prompt be?" if over is None else "--over and --off say two things",
            cure="write --over TOKENS to refuse longer ones, or --off to lift that",
        )
    if route and not (off or force):
        require_known(app, "route", route)
    flip(app, _lift("prompts", route) if off else _kill("prompts", route, over))


def _kill(
    kind: KillKind, name: str, tokens: int | None = None
) -> Callable[[psycopg.Connection, Author], Change]:
    return lambda connection, author: kill(
        connection, Kill(kind=kind, name=name, tokens=tokens, reason=author.reason), author
    )


def _lift(kind: KillKind, name: str) -> Callable[[psycopg.Connection, Author], Change]:
    return lambda connection, author: lift_kill(connection, kind, name, author)
