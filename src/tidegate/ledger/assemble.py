"""One picture of a journey out of the app's spans and the gateway's receipts.

Every instant of a journey belongs to exactly one stage, or to ``other``: to the innermost stage
that was running; where stages run in parallel, to the one that ends last, because that is the one
the user waits for. So the self times add up to the total and parallel work counts once. Spans
without a stage are transparent: their time is that of the stage around them.

Receipts carry durations, no places on the app's clock; the gateway's stages are laid inside the
stage whose span sent the request, and are never longer than that stage took.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from tidegate.ledger.receipts import Receipt
from tidegate.ledger.rollups import cost_is_unknown
from tidegate.ledger.spans import Span, tidy
from tidegate.stats import OTHER

MOST_STAGE_SPANS = 1000
"""Stage spans of one journey that are distinguished; further ones count as part of their parent."""
MOST_STAGES = 32
MORE = "(more)"
"""Stands for the stages beyond ``MOST_STAGES`` names."""

Interval = tuple[int, int]


class Journey(msgspec.Struct, frozen=True, kw_only=True):
    """What one user's journey took and cost. Times are milliseconds, cost is US dollars.

    ``stages`` are self times: with ``other`` they add up to ``total``. ``pieces`` are the
    gateway's stages by the app stage (or ``other``) that sent the requests.
    """

    trace: str
    span: str
    journey: str
    start_ns: int
    total: float
    stages: dict[str, float]
    other: float
    pieces: dict[str, dict[str, float]] = {}
    first_token: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    """Of the requests whose cost is known."""
    cost_unknown: int = 0
    requests: int = 0
    cache_hits: int = 0
    cache_asked: int = 0
    """Requests for which the cache was asked."""
    error: bool = False
    spans: int = 1


@dataclass
class _Node:
    """A stage span at its place on the root's clock."""

    name: str
    start: int
    end: int
    children: list[_Node] = field(default_factory=list)


@dataclass
class _Placed:
    """A span of any kind: its place, and the stage it is or lies in."""

    start: int
    end: int
    offset: int
    service: str
    node: _Node


def assemble(spans: Iterable[Span], receipts: Iterable[Receipt]) -> list[Journey]:
    """The journeys of one trace, each from its outermost journey span; none without such a span.

    Duplicates, missing parents, cycles and skewed clocks are borne: what hangs nowhere belongs to
    the journey that was running when it began.
    """
    by_id = {span.span: span for span in sorted(spans, key=lambda s: s.end_ns - s.start_ns)}
    roots = _roots(by_id)
    if not roots:
        return []
    children: dict[str, list[Span]] = {}
    root_ids = {root.span for root in roots}
    for span in by_id.values():
        if span.span not in root_ids:
            children.setdefault(_hangs_under(span, by_id, roots), []).append(span)
    by_root: dict[str, list[Receipt]] = {}
    placed = {root.span: _place(root, children) for root in roots}
    for receipt in {r.id: r for r in receipts}.values():
        home = next((r for r in roots if receipt.parent in placed[r.span][0]), roots[0])
        by_root.setdefault(home.span, []).append(receipt)
    return [_journey(root, *placed[root.span], by_root.get(root.span, [])) for root in roots]


def _roots(by_id: Mapping[str, Span]) -> list[Span]:
    """Journey spans that have no journey span above them, earliest first."""
    found = []
    for span in by_id.values():
        if span.journey is None:
            continue
        seen, above = {span.span}, by_id.get(span.parent or "")
        while above is not None and above.journey is None and above.span not in seen:
            seen.add(above.span)
            above = by_id.get(above.parent or "")
        if above is None or above.journey is None or above.span in seen:
            found.append(span)
    return sorted(found, key=lambda s: (s.start_ns, s.span))


def _hangs_under(span: Span, by_id: Mapping[str, Span], roots: Sequence[Span]) -> str:
    if span.parent in by_id:
        return str(span.parent)
    home = next((r for r in roots if r.start_ns <= span.start_ns <= r.end_ns), roots[0])
    return home.span


def _place(root: Span, children: Mapping[str, list[Span]]) -> tuple[dict[str, _Placed], _Node]:
    """Every span below ``root`` at its place on the root's clock, and the tree of stages."""
    top = _Node(OTHER, root.start_ns, max(root.start_ns, root.end_ns))
    placed = {root.span: _Placed(top.start, top.end, 0, root.service, top)}
    waiting, stages = [root.span], 0
    while waiting:
        above = placed[(parent := waiting.pop())]
        for span in children.get(parent, ()):
            if span.span in placed:
                continue
            offset = above.offset + _skew(span, above)
            start, end = span.start_ns + offset, max(span.start_ns, span.end_ns) + offset
            node = above.node
            if span.stage and span.stage != OTHER and stages < MOST_STAGE_SPANS:
                stages += 1
                node = _Node(tidy(span.stage), start, end)
                above.node.children.append(node)
            placed[span.span] = _Placed(start, end, offset, span.service, node)
            waiting.append(span.span)
    return placed, top


def _skew(span: Span, above: _Placed) -> int:
    """Nanoseconds to move a span of another process so that it fits into the one that called it."""
    if span.service == above.service:
        return 0
    start, end = span.start_ns + above.offset, span.end_ns + above.offset
    if end - start > above.end - above.start:
        return above.start - start
    return max(0, above.start - start) + min(0, above.end - end)


def self_times(top: _Node) -> dict[str, int]:
    """Nanoseconds by stage name; together exactly the length of ``top``."""
    total: dict[str, int] = {}
    waiting: list[tuple[_Node, list[Interval]]] = [(top, [(top.start, top.end)])]
    while waiting:
        node, left = waiting.pop()
        for child in sorted(node.children, key=lambda c: (-c.end, c.start, c.name)):
            taken, left = _cut(left, child.start, child.end)
            if taken:
                waiting.append((child, taken))
        total[node.name] = total.get(node.name, 0) + sum(b - a for a, b in left)
    return total


def _cut(intervals: list[Interval], start: int, end: int) -> tuple[list[Interval], list[Interval]]:
    """What of ``intervals`` lies within [start, end), and what is left of them."""
    inside, outside = [], []
    for a, b in intervals:
        if b <= start or end <= a:
            outside.append((a, b))
            continue
        inside.append((max(a, start), min(b, end)))
        if a < start:
            outside.append((a, start))
        if end < b:
            outside.append((end, b))
    return [(a, b) for a, b in inside if a < b], outside


def _journey(
    root: Span, placed: Mapping[str, _Placed], top: _Node, receipts: Sequence[Receipt]
) -> Journey:
    times = {name: ns / 1e6 for name, ns in self_times(top).items()}
    other = times.pop(OTHER)
    total = (top.end - top.start) / 1e6
    renamed = _few_names(times)
    stages: dict[str, float] = {}
    for name, ms in times.items():
        stages[renamed[name]] = stages.get(renamed[name], 0.0) + ms
    tokens = [usage for r in receipts for usage in r.billed]
    return Journey(
        trace=root.trace,
        span=root.span,
        journey=tidy(root.journey or ""),
        start_ns=root.start_ns,
        total=total,
        stages=stages,
        other=other,
        pieces=_pieces(placed, top, receipts, renamed, {**stages, OTHER: other}),
        first_token=_first_token(placed, top, receipts, total),
        prompt_tokens=sum(usage.prompt for usage in tokens),
        completion_tokens=sum(usage.completion for usage in tokens),
        cost=sum(r.cost for r in receipts if r.cost is not None),
        cost_unknown=sum(cost_is_unknown(r) for r in receipts),
        requests=len(receipts),
        cache_hits=sum(r.cache in ("hit", "shared") for r in receipts),
        cache_asked=sum(r.cache in ("hit", "shared", "miss") for r in receipts),
        error=root.error,
        spans=len(placed),
    )


def _few_names(times: Mapping[str, float]) -> dict[str, str]:
    """The name under which each stage is reported: the longest ones keep theirs."""
    kept = sorted(times, key=lambda name: -times[name])[:MOST_STAGES]
    return {OTHER: OTHER, **{name: name if name in kept else MORE for name in times}}


def _pieces(
    placed: Mapping[str, _Placed],
    top: _Node,
    receipts: Sequence[Receipt],
    renamed: Mapping[str, str],
    limits: Mapping[str, float],
) -> dict[str, dict[str, float]]:
    """The gateway's stages by app stage, shrunk where requests in parallel exceed the stage."""
    pieces: dict[str, dict[str, float]] = {}
    for receipt in receipts:
        spot = placed.get(receipt.parent or "")
        within = renamed.get((spot.node if spot else top).name, OTHER)
        mine = pieces.setdefault(within, {})
        for stage, ms in receipt.stages.items():
            mine[stage] = mine.get(stage, 0.0) + max(0.0, ms)
    for within, mine in pieces.items():
        whole, limit = sum(mine.values()), limits.get(within, 0.0)
        if whole > limit:
            pieces[within] = {stage: ms * limit / whole for stage, ms in mine.items()}
    return pieces


def _first_token(
    placed: Mapping[str, _Placed], top: _Node, receipts: Sequence[Receipt], total: float
) -> float | None:
    """Milliseconds from the journey's start to the first content of any streamed answer."""
    found = []
    for receipt in receipts:
        if receipt.first_token is not None:
            spot = placed.get(receipt.parent or "")
            sent = (spot.start - top.start) / 1e6 if spot else 0.0
            found.append(min(max(0.0, sent + receipt.first_token), total))
    return min(found) if found else None
