"""Sums and sketches per minute that merge by addition, so that a window is answered at once.

A roll-up holds everything that ``questions`` tells about many receipts or journeys: counted and
summed values (``tallies``), a quantile sketch for the total, the first token and each stage, and
shelves for the share of the P95. Nothing in it grows with the number of receipts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np

from tidegate.ledger.classes import class_of
from tidegate.ledger.receipts import ATTEMPT_CODES, Receipt
from tidegate.ledger.spans import tidy
from tidegate.ledger.stages import STAGES
from tidegate.stats import Shelves, Sketch

TOTAL, FIRST_TOKEN, STAGE = "total", "first_token", "stage."
CLASS = "class."
"""Begins the tallies of errors by class (``classes.ErrorClass``)."""
MANY = "(many)"
"""Stands for the journeys that exceed ``MOST_KEYS``: an app may name them as it likes."""
MOST_KEYS = 256
OTHER = "other"
"""Stands for the codes of a provider's own, which may be any."""

T = TypeVar("T")

Scope = str
"""``route``: requests of the gateway. ``journey_route``: users' requests once more, by the journey
that they were made for. ``journey``: journeys of an app."""


class RollupKey(NamedTuple):
    """``minute``: whole minutes since the epoch. An absent name is the empty string."""

    minute: int
    scope: Scope
    release: str = ""
    route: str = ""
    variant: str = ""
    purpose: str = "user"
    journey: str = ""


@dataclass(frozen=True)
class Rollup:
    """``sketches``: by ``total``, ``first_token`` and ``stage.<name>``, in milliseconds."""

    tallies: Mapping[str, float] = field(default_factory=dict)
    sketches: Mapping[str, Sketch] = field(default_factory=dict)
    shelves: Shelves = field(default_factory=lambda: Shelves.merged([]))

    @property
    def count(self) -> int:
        return int(self.tallies.get("count", 0))

    def __add__(self, other: Rollup) -> Rollup:
        names = [*self.sketches, *(n for n in other.sketches if n not in self.sketches)]
        return Rollup(
            add_tallies([self.tallies, other.tallies]),
            {
                name: Sketch.merged(
                    side.sketches[name] for side in (self, other) if name in side.sketches
                )
                for name in names
            },
            Shelves.merged([self.shelves, other.shelves]),
        )

    def encode(self) -> bytes:
        return _encoder.encode(
            _Stored(
                dict(self.tallies),
                {name: sketch.encode() for name, sketch in self.sketches.items()},
                self.shelves.encode(),
            )
        )

    @classmethod
    def merged_from(cls, encoded: Sequence[bytes]) -> Rollup:
        """The merge of many encoded roll-ups. Raises ValueError for foreign bytes."""
        try:
            stored = [_decoder.decode(one) for one in encoded]
        except msgspec.DecodeError as error:
            raise ValueError(f"not a roll-up: {error}") from None
        by_name: dict[str, list[bytes]] = {}
        for one in stored:
            for name, sketch in one.sketches.items():
                by_name.setdefault(name, []).append(sketch)
        return cls(
            add_tallies(one.tallies for one in stored),
            {name: Sketch.merged_from(sketches) for name, sketches in by_name.items()},
            Shelves.merged_from(one.shelves for one in stored),
        )


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    tallies: dict[str, float]
    sketches: dict[str, bytes]
    shelves: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Stored)


def add_tallies(many: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for one in many:
        for name, value in one.items():
            total[name] = total.get(name, 0) + value
    return total


def cost_is_unknown(receipt: Receipt) -> bool:
    """Whether money may have been spent and the amount is unknown. A request that reached no
    provider and was not served cost nothing, whatever its receipt leaves open."""
    return receipt.cost is None and (bool(receipt.attempts) or receipt.outcome == "served")


def clean(name: str | None) -> str:
    """``name`` short enough for an index; the empty string when there is none."""
    return tidy(name) if name else ""


def receipt_rollups(receipts: Iterable[Receipt]) -> dict[RollupKey, Rollup]:
    """The roll-ups of new receipts. No release is ever folded into another: the smallest groups are
    a canary's. A request that was refused before its route was known has no journey here, whatever
    its client named."""
    groups: dict[RollupKey, list[Receipt]] = {}
    for r in receipts:
        minute, release, route = int(r.at // 60), clean(r.release), clean(r.route)
        key = RollupKey(minute, "route", release, route, clean(r.variant), r.purpose)
        groups.setdefault(key, []).append(r)
        if r.journey and route and r.purpose == "user":
            key = RollupKey(minute, "journey_route", release, route, journey=clean(r.journey))
            groups.setdefault(key, []).append(r)
    return {key: _of_receipts(group) for key, group in bounded(groups).items()}


def bounded(groups: dict[RollupKey, list[T]]) -> dict[RollupKey, list[T]]:
    """Fold the smallest names of routes or journeys into one named ``(many)``, where one minute of
    one release has more than ``MOST_KEYS``; its release and purpose stay."""
    if len(groups) <= MOST_KEYS:
        return groups
    together: dict[RollupKey, list[RollupKey]] = {}
    for key in groups:
        together.setdefault(key._replace(route="", variant="", journey=""), []).append(key)
    kept: dict[RollupKey, list[T]] = {}
    for whole, keys in together.items():
        keys.sort(key=lambda key: len(groups[key]), reverse=True)
        kept.update((key, groups[key]) for key in keys[:MOST_KEYS])
        for key in keys[MOST_KEYS:]:
            folded = whole._replace(
                route=MANY if key.route else "", journey=MANY if key.journey else ""
            )
            kept[folded] = kept.get(folded, []) + groups[key]
    return kept


def _of_receipts(group: Sequence[Receipt]) -> Rollup:
    stage_times = {
        stage: np.array([r.stages.get(stage, np.nan) for r in group], dtype=np.float64)
        for stage in STAGES
    }
    totals = np.array([r.total for r in group], dtype=np.float64)
    first = [r.first_token for r in group if r.first_token is not None]
    return build_rollup(_tally(group), totals, first, stage_times)


def build_rollup(
    tallies: Mapping[str, float],
    totals: np.ndarray[tuple[int], np.dtype[np.float64]],
    first_tokens: Sequence[float],
    stages: Mapping[str, np.ndarray[tuple[int], np.dtype[np.float64]]],
) -> Rollup:
    """A roll-up of ``len(totals)`` things; a stage that one of them did not enter is NaN there."""
    sketches = {TOTAL: Sketch.of(totals)}
    if first_tokens:
        sketches[FIRST_TOKEN] = Sketch.of(np.array(first_tokens, dtype=np.float64))
    parts = {}
    for name, times in stages.items():
        entered = ~np.isnan(times)
        if entered.any():
            sketches[STAGE + name] = Sketch.of(times[entered])
            parts[name] = np.nan_to_num(times).clip(0)
    return Rollup(tallies, sketches, Shelves.of(totals, parts))


def _tally(group: Sequence[Receipt]) -> dict[str, float]:
    counted: dict[str, float] = {"count": len(group)}
    get = counted.get
    prompt = completion = cached = reasoning = estimated = replayed = 0
    cost, unknown = 0.0, 0
    for r in group:
        for name in (f"outcome.{r.outcome}", f"cache.{r.cache}", f"status.{r.status // 100}xx"):
            counted[name] = get(name, 0) + 1
        if r.served_by is not None:
            name = f"served.{r.served_by}"
            counted[name] = get(name, 0) + 1
        if (failed := class_of(r)) is not None:
            counted[CLASS + failed] = get(CLASS + failed, 0) + 1
        for attempt in r.attempts:
            if attempt.code is not None:
                name = "failed_attempt." + (
                    attempt.code if attempt.code in ATTEMPT_CODES else OTHER
                )
                counted[name] = get(name, 0) + 1
        for usage in r.billed:
            prompt += usage.prompt
            completion += usage.completion
            cached += usage.cached
            reasoning += usage.reasoning
            estimated += usage.estimated
        if r.replayed is not None:
            replayed += r.replayed.prompt + r.replayed.completion
        if r.cost is not None:
            cost += r.cost
        elif cost_is_unknown(r):
            unknown += 1
    counted |= {
        "tokens.prompt": prompt,
        "tokens.completion": completion,
        "tokens.cached": cached,
        "tokens.reasoning": reasoning,
        "tokens.replayed": replayed,
        "usage.estimated": estimated,
        "cost": cost,
        "cost.unknown": unknown,
    }
    return counted
