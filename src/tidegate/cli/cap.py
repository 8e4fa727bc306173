"""``tidegate cap``: hold requests shorter than the release says, at once."""

from __future__ import annotations

from typing import Literal

import click

from tidegate.base import UsageError
from tidegate.cli.flip import Flip, switch_options
from tidegate.cli.known import require_known, require_surge
from tidegate.switches import EVERY, Cap, lift_cap, set_cap


@click.command(
    epilog="""\b
Examples:
  tidegate cap --output-tokens 200 --reason 'GPU shortage'
  tidegate cap --route recommend --surge on
  tidegate cap --route recommend --off
Exit codes: 0 in force in every worker, 1 not in all of them (they are named), 2 usage."""
)
@click.option("--route", default=EVERY, help="Only this route; without, all of them.")
@click.option("--output-tokens", type=click.IntRange(min=1), help="Hold answers to this length.")
@click.option("--prompt-tokens", type=click.IntRange(min=1), help="Refuse longer prompts.")
@click.option(
    "--surge",
    type=click.Choice(["on", "off", "auto"]),
    help="Hold caps.surge of the spec, or do not, whatever the load is; auto: by load again.",
)
@click.option("--off", is_flag=True, help="Lift all caps set by hand for this route (or for all).")
@click.option("--app", default=".", metavar="APP", help="The app's folder.")
@switch_options
def command(
    route: str,
    output_tokens: int | None,
    prompt_tokens: int | None,
    surge: Literal["on", "off", "auto"] | None,
    off: bool,
    app: str,
    flip: Flip,
) -> None:
    """Cap requests by hand, from the next request on; the tightest of all caps holds.

    What is not named stays as it was set by hand before. Waits until every live worker has
    acknowledged, and prints each with its milliseconds.
    """
    named = any(value is not None for value in (output_tokens, prompt_tokens, surge))
    if named == off:
        raise UsageError(
            "cap_not_named",
            "a cap and --off say two things" if off else "which cap?",
            cure="write --output-tokens N, --prompt-tokens N or --surge on, or --off to lift them",
        )
    if off:
        flip(app, lambda connection, author: lift_cap(connection, route, author))
        return
    if route:
        require_known(app, "route", route)
    if surge in ("on", "off"):
        require_surge(app, route)
    flip(
        app,
        lambda connection, author: set_cap(
            connection,
            Cap(
                route=route,
                prompt_tokens=prompt_tokens,
                output_tokens=output_tokens,
                surge=None if surge == "auto" else surge,
                reason=author.reason,
            ),
            author,
            by_load=surge == "auto",
        ),
    )
