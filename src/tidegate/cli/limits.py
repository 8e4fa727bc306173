"""``tidegate limits``: how much of each limit is used, reserved and left."""

from __future__ import annotations

import asyncio
import json
import time

import click
import msgspec

from tidegate.base import StoreError, format_duration, read_runtime
from tidegate.registry import load_release
from tidegate.release import Limit, Release
from tidegate.spec import locate
from tidegate.stores import (
    NANO,
    CounterState,
    Unit,
    ValkeyClient,
    ValkeyDown,
    Window,
    counter_stem,
    read_counters,
    window_at,
)

_PATIENCE = 2.0


class LimitState(msgspec.Struct, frozen=True, kw_only=True):
    """One limit for one scope. Amounts are in its unit: requests, tokens or US dollars."""

    limit: str
    per: str
    scope: str
    """Whose it is: a key's id, the name of a tenant, route or model; empty: those without one."""
    unit: Unit
    most: float
    used: float
    reserved: float
    """Reserved by requests under way, and prefetched by workers for those that come next."""
    remaining: float
    resets_in: float
    """Seconds until a budget's window ends, or until a bucket is full again."""
    on_outage: str


@click.command(
    epilog="""\b
Examples:
  tidegate limits
  tidegate limits examples/fitness --json
Exit codes: 0 shown, 1 nothing runs or the counters cannot be read, 2 usage."""
)
@click.argument("app", default=".", metavar="[APP]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; dollars, tokens, seconds.")
def command(app: str, as_json: bool) -> None:
    """Show each limit of the running app: used, reserved, remaining, and when it resets.

    A limit is listed for whoever has used it in the present window. `reserved` is what requests
    under way may use at worst, and what workers hold for a moment for those that come next;
    it returns or becomes `used` when they end.
    """
    runtime = read_runtime(locate(app).parent.resolve())
    release = load_release(runtime.registry, runtime.release)
    states = asyncio.run(_read(release, runtime.valkey_url))
    if as_json:
        click.echo(json.dumps({"limits": msgspec.to_builtins(states)}))
    elif not release.limits:
        click.echo("no limits; write some under limits: in tidegate.yaml")
    else:
        _print_table(states)


async def _read(release: Release, url: str) -> list[LimitState]:
    store = ValkeyClient(url, deadline=_PATIENCE)
    await store.start()
    now, states = time.time(), []
    try:
        for limit in release.limits.values():
            window = window_at(limit.calendar, now)
            stem = counter_stem(limit.name, limit.unit, window.name)
            found = await read_counters(store, stem)
            if not found and limit.per == "app":
                found = {f"{stem}app": CounterState(0, 0, 0)}
            for name in sorted(found):
                scope = name.removeprefix(stem)
                states.append(_limit_state(limit, scope, found[name], window, now))
    except ValkeyDown as down:
        raise StoreError(
            "limits_unreadable",
            f"the counters of the limits cannot be read: {down}",
            cure="look whether Valkey runs; tidegate up starts it again when it dies",
        ) from None
    finally:
        await store.stop()
    return states


def _limit_state(
    limit: Limit, scope: str, state: CounterState, window: Window, now: float
) -> LimitState:
    scale = NANO if limit.unit == "dollars" else 1
    most = limit.amount if limit.burst is None else limit.burst
    used, resets = state.used / scale, window.end - now
    if limit.every is not None:
        rate = limit.amount / limit.every
        used = max(0.0, used - state.since * rate)
        resets = used / rate
    reserved = state.reserved / scale
    return LimitState(
        limit=limit.name,
        per=limit.per,
        scope="" if limit.per == "app" else scope,
        unit=limit.unit,
        most=most,
        used=used,
        reserved=reserved,
        remaining=max(0.0, most - used - reserved),
        resets_in=resets,
        on_outage=limit.on_outage,
    )


def _print_table(states: list[LimitState]) -> None:
    from tidegate.cli.pictures import print_table, table_of

    numbers = ("used", "reserved", "remaining", "of")
    table = table_of(
        "limit", "per", "scope", *numbers, "unit", "resets in", "on outage", numbers=numbers
    )
    for one in states:
        figures = (_amount(one, n) for n in (one.used, one.reserved, one.remaining, one.most))
        table.add_row(
            one.limit,
            one.per,
            one.scope or ("" if one.per == "app" else "(none)"),
            *figures,
            one.unit,
            format_duration(one.resets_in) if one.resets_in >= 1 else "now",
            one.on_outage,
        )
    print_table(table)
    if not states:
        click.echo("nothing was used in the present windows")


def _amount(one: LimitState, amount: float) -> str:
    if one.unit == "dollars":
        whole = f"{amount:,.6f}".rstrip("0")
        return whole + "0" * max(0, 2 - len(whole.partition(".")[2]))
    return f"{amount:,.0f}"
