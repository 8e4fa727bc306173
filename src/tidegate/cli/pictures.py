"""A profile as people read it: a heading for each journey and route, then a row for each stage."""

from __future__ import annotations

import time
from collections.abc import Container, Iterator
from decimal import Decimal

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tidegate.base import format_duration
from tidegate.ledger import Picture, Profile, Quantiles, StageRow, tidy

_BAR = 12
"""Characters of the bar of a share of 100%."""
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LONGEST_NAME = 40
_WIDEST = 1000
_LEGEND = """share: of the time of those near the P95 (P90 to P99). other: between the stages.
A row counts only what ran it: call does not count what the cache answered."""


def draw_profile(profile: Profile) -> Group:
    """Everything in ``profile``; fits 80 columns."""
    return Group(*_parts(profile))


def _parts(profile: Profile) -> Iterator[RenderableType]:
    span = f"{_clock(profile.begin)} to {_clock(profile.end)}"
    yield Text(span, style="dim")
    for title, pictures in (("journey", profile.journeys), ("gateway route", profile.routes)):
        for picture in pictures:
            yield Text()
            yield from _picture(title, picture)
    if not profile.journeys and profile.routes:
        yield Text()
        yield Text(
            "No journeys in this window: name them in the app with tidegate.sdk.journey.",
            style="dim",
        )
    if profile.journeys or profile.routes:
        yield Text()
        yield Text(_LEGEND, style="dim")


def _picture(title: str, picture: Picture) -> Iterator[RenderableType]:
    times, first = picture.times, picture.first_token
    head = Text()
    head.append(shorten(picture.name), style="bold")
    head.append(f"  {title}", style="dim")
    head.append(f"  n {picture.count:,}")
    if picture.errors:
        head.append(f"  errors {picture.errors:,}", style="red")
    yield head
    line = Text("  total  ")
    line.append(_three(times), style="bold")
    if first.p50 is not None:
        line.append(f"   first token P50 {_time(first.p50)}  P95 {_time(first.p95)}")
    yield line
    yield Text(f"  {_money(picture)}")
    yield Padding(_table(picture), (0, 0, 0, 2))


def _three(times: Quantiles) -> str:
    return f"P50 {_time(times.p50)}  P95 {_time(times.p95)}  P99 {_time(times.p99)}"


def _money(picture: Picture) -> str:
    unknown = f" (unknown: {picture.cost_unknown:,})" if picture.cost_unknown else ""
    hits = "" if picture.cache_rate is None else f"   cache hits {picture.cache_rate:.0%}"
    tokens = f"tokens {picture.prompt_tokens:,} in, {picture.completion_tokens:,} out"
    return f"{tokens}   cost {money(picture.cost)}{unknown}{hits}"


def money(dollars: float) -> str:
    """US dollars with as many digits as small sums need, never in powers of ten."""
    if dollars == 0:
        return "$0"
    if dollars >= 1:
        return f"${dollars:,.2f}"
    return f"${Decimal(f'{dollars:.3g}'):f}" if dollars >= 1e-6 else "<$0.000001"


def plain_console() -> Console:
    """A console that takes brackets in names for what they are: names may come from clients."""
    return Console(markup=False, highlight=False)


def table_of(*titles: str, numbers: Container[str] = ()) -> Table:
    """A table without lines, whose cells are never cut short."""
    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, justify="right" if title in numbers else "left", overflow="fold")
    return table


def print_table(table: Table) -> None:
    """As wide as the terminal; in a pipe as wide as it needs to be, one row a line."""
    console = plain_console()
    if not console.is_terminal:
        console.width = _WIDEST
    console.print(table)


def shorten(name: str) -> str:
    """``name`` without control characters, at most 40 characters."""
    name = tidy(name)
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _table(picture: Picture) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("stage", min_width=14, overflow="ellipsis", no_wrap=True)
    for name in ("P50", "P95", "P99"):
        table.add_column(name, justify="right", min_width=7, no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, width=_BAR)
    for row in picture.stages:
        table.add_row(*_cells(row), style="dim" if row.within else "")
    return table


def _cells(row: StageRow) -> tuple[str, ...]:
    name = f"  {row.stage}" if row.within else shorten(row.stage)
    times = (_time(row.times.p50), _time(row.times.p95), _time(row.times.p99))
    if row.share is None:
        return name, *times, "", ""
    return name, *times, _percent(row.share), bar(row.share)


def bar(share: float) -> str:
    """``share`` of ``_BAR`` characters, in eighths."""
    eighths = round(min(max(share, 0.0), 1.0) * _BAR * 8)
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")


def _percent(share: float) -> str:
    if 0 < share < 0.001:
        return "<0.1%"
    return f"{share:.0%}" if share >= 0.1 or share == 0 else f"{share:.1%}"


def _time(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "-"
    return "0" if milliseconds == 0 else format_duration(milliseconds / 1e3)


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
