"""The arithmetic of a comparison: median, spread and ratio of each figure, and the bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bench.gateway.figures import Bar, look, ratio

Run = Mapping[str, Mapping[str, Any]]
"""One run: side to what was measured of it."""

_RUNS = 3
"""Fewest runs that have a spread worth the name."""
_WIDE = 0.15
"""A spread beyond which a verdict says little."""


@dataclass(frozen=True)
class Figure:
    """What is compared. ``bar``: whether the head must not be worse than the base by it."""

    name: str
    unit: str
    path: tuple[str, ...]
    bar: bool = True


def _cpu(case: str, name: str) -> tuple[Figure, Figure]:
    alone = Figure(f"{name}: CPU, gateway alone", "us", (case, "cpu_us_by_group", "gateway"), False)
    return Figure(f"{name}: CPU, whole tree", "us", (case, "cpu_us")), alone


FIGURES = (
    *_cpu("miss", "miss"),
    *_cpu("hit", "hit"),
    *_cpu("limited", "one active limit"),
    *_cpu("stream", "streamed answer"),
    Figure("stream: added first token p50", "ms", ("stream", "added_first_token_ms", "p50")),
    Figure("resident memory of a worker, after the load", "MiB", ("memory", "after_mib")),
    Figure("resident memory of a worker, before it", "MiB", ("memory", "before_mib"), False),
)


@dataclass(frozen=True)
class Spread:
    """The figures of one side: its runs in order, their median, largest less smallest."""

    values: tuple[float, ...]
    median: float
    spread: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(tuple(values), median(values), max(values) - min(values))


@dataclass(frozen=True)
class Compared:
    """One figure of both sides, over the runs that have it of both."""

    figure: Figure
    base: Spread
    head: Spread

    @property
    def ratio(self) -> float | None:
        """Head to base, of the medians: 1.05 is 5% more."""
        return ratio(self.head.median, self.base.median)

    @property
    def worse_in(self) -> int:
        """In how many runs the head's figure was larger than the base's of the same run."""
        return sum(h > b for b, h in zip(self.base.values, self.head.values, strict=True))

    @property
    def verdict(self) -> Bar:
        """Not worse by more than the wider spread of the two. Not judged below _RUNS runs: two
        runs that happen to agree would make a bar of nothing."""
        more = ratio(max(self.base.spread, self.head.spread), self.base.median)
        judged = more is not None and len(self.base.values) >= _RUNS
        limit = 1.0 + (more or 0.0) if judged else None
        return Bar(f"{self.figure.name}, head to base", self.ratio, limit)

    def to_json(self) -> dict[str, object]:
        sides = {"base": asdict(self.base), "head": asdict(self.head)}
        return {
            "name": self.figure.name,
            "unit": self.figure.unit,
            **sides,
            "ratio": self.ratio,
            "worse_in": self.worse_in,
        }


def compare(runs: Sequence[Run]) -> list[Compared]:
    """Each figure that both sides have in at least one run."""
    found = []
    for figure in FIGURES:
        pairs = [
            (base, head)
            for run in runs
            if (base := look(run, "base", *figure.path)) is not None
            and (head := look(run, "head", *figure.path)) is not None
        ]
        if pairs:
            bases, heads = zip(*pairs, strict=True)
            found.append(Compared(figure, Spread.of(bases), Spread.of(heads)))
    return found


def bars(compared: Sequence[Compared]) -> list[Bar]:
    """A bar for each figure that has one; a figure that was not measured is not reached."""
    by_figure = {one.figure: one for one in compared}
    return [
        by_figure[figure].verdict
        if figure in by_figure
        else Bar(f"{figure.name}, head to base", None, None)
        for figure in FIGURES
        if figure.bar
    ]


def warnings(runs: Sequence[Run], compared: Sequence[Compared]) -> list[str]:
    """What a reader of the figures must know."""
    words = []
    for number, run in enumerate(runs, 1):
        for side, measured in run.items():
            for case in ("miss", "hit", "limited"):
                if (seen := measured.get(case)) is None:
                    continue
                where = f"run {number}, {side}, {case}"
                if seen["errors"]:
                    words.append(f"{where}: {seen['errors']} of {seen['requests']} failed")
                if case != "hit" and seen["upstream_share"] < 0.99:
                    words.append(f"{where}: not every request reached the upstream")
                if case == "hit" and seen["upstream_share"] > 0.01:
                    words.append(f"{where}: {seen['upstream_share']:.1%} reached the upstream")
                if (seen.get("receipts_share") or 0.0) < 0.999:
                    words.append(f"{where}: receipts were not all in the database in time")
    busy = [seen["miss"]["others_cores"] for run in runs for seen in run.values() if "miss" in seen]
    if busy and median(busy) > 0.1:
        words.append(f"the machine was not quiet: {median(busy):.2f} cores did other work")
    for one in compared:
        widest = max(one.base.spread, one.head.spread)
        if one.figure.bar and widest > _WIDE * one.base.median:
            words.append(f"{one.figure.name}: the runs spread {widest / one.base.median:.0%}")
    return words
