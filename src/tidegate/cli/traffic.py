"""``tidegate traffic``: divide a route's requests over releases."""

from __future__ import annotations

import json

import click

from tidegate.base import STATE_FOLDER, UsageError
from tidegate.cli.flip import Flip, switch_options
from tidegate.registry import load_release, resolve
from tidegate.release import Release
from tidegate.spec import locate, nearest
from tidegate.stores import connected
from tidegate.switches import EVERY, Weight, set_traffic, snapshot

_ALL = "all"
"""How every route is named here."""


@click.command(
    epilog="""\b
Examples:
  tidegate traffic recommend 3f2a=90 81cc=10
  tidegate traffic all 81cc=100
  tidegate traffic recommend --off
Exit codes: 0 in force in every worker, 1 not in all of them, 2 usage."""
)
@click.argument("route", required=False)
@click.argument("weights", nargs=-1, metavar="[DIGEST=PERCENT]...")
@click.option("--off", is_flag=True, help="Only the release that the gateway was started with.")
@click.option("--app", default=".", metavar="APP", help="The app's folder.")
@switch_options
def command(route: str | None, weights: tuple[str, ...], off: bool, app: str, flip: Flip) -> None:
    """Divide the requests of ROUTE (or of `all` that have no weights of their own) over releases.

    A release is named by its digest, the start of one, or a tag. The first is the stable one: a
    user that a growing candidate has taken from it stays there. Workers load releases while they
    serve, and let them go when their last request has ended. Without arguments: show the weights.
    """
    if route is None and not off:
        _show(app, flip.as_json)
        return
    if route is None or "=" in route:
        raise UsageError(
            "route_missing",
            "the requests of which route?",
            cure=f"write the route first, or {_ALL} for those that have no weights of their own",
        )
    if bool(weights) == off:
        raise UsageError(
            "weights_missing",
            "weights and --off say two things"
            if off
            else f"how shall the requests of {route} be divided?",
            cure="write DIGEST=PERCENT once for each release, or --off",
        )
    name = EVERY if route == _ALL else route
    parsed = [] if off else _weights(app, name, weights)
    flip(app, lambda connection, author: set_traffic(connection, name, parsed, author))


def _weights(app: str, route: str, texts: tuple[str, ...]) -> list[Weight]:
    registry = locate(app).parent.resolve() / STATE_FOLDER / "registry"
    found = []
    for text in texts:
        reference, _, share = text.rpartition("=")
        if not reference or not share.rstrip("%").isdigit():
            raise _wrong(f"{text!r} is not DIGEST=PERCENT")
        digest = resolve(registry, reference)
        if route != EVERY:
            _require_route(load_release(registry, digest), digest, route)
        found.append(Weight(route=route, release=digest, weight=int(share.rstrip("%"))))
    if len({one.release for one in found}) != len(found):
        raise _wrong("a release stands twice")
    total = sum(one.weight for one in found)
    if total != 100:
        raise _wrong(f"the weights add up to {total}")
    return found


def _require_route(release: Release, digest: str, route: str) -> None:
    names = [*release.routes, *(release.models if release.gateway.direct_models else ())]
    if route not in names:
        near = nearest(route, names)
        raise UsageError(
            "route_unknown",
            f"release {digest[7:19]} has no route {route}",
            cure=f"did you mean {near}?" if near else f"its routes: {', '.join(sorted(names))}",
        )


def _wrong(words: str) -> UsageError:
    return UsageError(
        "weights_invalid",
        words,
        cure="write whole percents that add up to 100, as in 3f2a=90 81cc=10",
    )


def _show(app: str, as_json: bool) -> None:
    with connected(locate(app).parent.resolve()) as connection:
        found = snapshot(connection).traffic
    shares: dict[str, dict[str, int]] = {}
    for one in found:
        shares.setdefault(one.route or _ALL, {})[one.release] = one.weight
    if as_json:
        click.echo(json.dumps({"traffic": shares}))
    elif not shares:
        click.echo("no weights; the release that the gateway was started with serves every request")
    for route, releases in () if as_json else shares.items():
        parts = ", ".join(f"{digest[7:19]} {share}%" for digest, share in releases.items())
        click.echo(f"{route}: {parts}")
