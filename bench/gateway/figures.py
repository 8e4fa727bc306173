"""The arithmetic of the bench: percentiles, medians, ratios and bars. No clock, no sockets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

_STRAY = 0.001
"""Share of chunks that may come late on a machine that does other things too: a product that
holds chunks back shows tens of percent."""


def percentile(values: Sequence[float], share: float) -> float:
    """The ``share`` quantile (0..1), linear between order statistics (Hyndman and Fan type 7)."""
    if not values:
        return math.nan
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def held_back(sent: Sequence[int], received: Sequence[int]) -> int:
    """Chunks that reached the client only when their successor had already left the upstream.

    The last chunk has no successor and is not judged.
    """
    return sum(arrived >= following for arrived, following in zip(received, sent[1:], strict=False))


def medians(rounds: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Median of each number over the rounds; nested mappings likewise; ``errors`` are summed."""
    rounds = list(rounds)
    result: dict[str, Any] = {}
    for name in rounds[0]:
        column = [r[name] for r in rounds if name in r]
        if isinstance(column[0], Mapping):
            result[name] = medians(column)
        elif name in ("errors", "requests", "streams", "chunks", "held_back"):
            result[name] = sum(column)
        else:
            result[name] = median(column)
    return result


def growth(before: float, after: float) -> float:
    """Relative growth: 0.05 is 5%."""
    return after / before - 1.0


def ratio(above: float | None, below: float | None) -> float | None:
    """``above / below``; None when one is missing or not a positive number."""
    if above is None or below is None or not below > 0 or not math.isfinite(above):
        return None
    return above / below


@dataclass(frozen=True)
class Bar:
    """One thing the product must reach, and what this run says about it."""

    name: str
    value: float | None
    limit: float | None
    unit: str = "x"
    at_most: bool = True

    @property
    def reached(self) -> bool | None:
        """None when the run did not measure it."""
        if self.value is None or self.limit is None:
            return None
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "reached": self.reached}


def look(systems: Mapping[str, Any], *path: str) -> float | None:
    """A figure deep in the results, or None when this run has none."""
    here: Any = systems
    for step in path:
        if not isinstance(here, Mapping) or step not in here:
            return None
        here = here[step]
    return None if here is None or (isinstance(here, float) and math.isnan(here)) else float(here)


def ratios(systems: Mapping[str, Any]) -> dict[str, float | None]:
    """What a run is read for: quotients of figures of that same run."""
    tensorzero = look(systems, "tensorzero", "miss", "cpu_us")
    gateway = ("cpu_us_by_group", "gateway")
    return {
        "miss_to_tensorzero": ratio(look(systems, "tidegate", "miss", "cpu_us"), tensorzero),
        "miss_gateway_only_to_tensorzero": ratio(
            look(systems, "tidegate", "miss", *gateway), tensorzero
        ),
        "hit_to_tensorzero": ratio(look(systems, "tidegate", "hit", "cpu_us"), tensorzero),
        "hit_gateway_only_to_tensorzero": ratio(
            look(systems, "tidegate", "hit", *gateway), tensorzero
        ),
        "litellm_to_miss": ratio(
            look(systems, "litellm", "miss", "cpu_us"), look(systems, "tidegate", "miss", "cpu_us")
        ),
        "litellm_to_miss_gateway_only": ratio(
            look(systems, "litellm", "miss", "cpu_us"), look(systems, "tidegate", "miss", *gateway)
        ),
        "portkey_to_miss": ratio(
            look(systems, "portkey", "miss", "cpu_us"), look(systems, "tidegate", "miss", "cpu_us")
        ),
    }


def bars(systems: Mapping[str, Any], memory: Mapping[str, Any] | None) -> list[Bar]:
    """The bars of the product, each judged by this run."""
    of = ratios(systems)
    floor = look(systems, "nginx", "stream", "added_first_token_ms", "p50")
    limit = None if floor is None else 1.5 * max(floor, 0.0) + 0.5
    first = look(systems, "tidegate", "stream", "added_first_token_ms", "p50")
    held = look(systems, "tidegate", "stream", "held_back_share")
    noise = max(
        look(systems, name, "stream", "held_back_share") or 0.0 for name in ("direct", "nginx")
    )
    grown = None if not memory else memory.get("growth")
    return [
        Bar("miss: CPU, whole tree, to TensorZero", of["miss_to_tensorzero"], 1.0),
        Bar("miss: CPU, gateway alone, to TensorZero", of["miss_gateway_only_to_tensorzero"], 1.0),
        Bar("hit: CPU, whole tree, to TensorZero's miss", of["hit_to_tensorzero"], 0.5),
        Bar(
            "hit: CPU, gateway alone, to TensorZero's miss",
            of["hit_gateway_only_to_tensorzero"],
            0.5,
        ),
        Bar(
            "LiteLLM's CPU to Tidegate's miss, whole tree",
            of["litellm_to_miss"],
            40.0,
            at_most=False,
        ),
        Bar(
            "stream: added first token p50 (1.5 x nginx + 0.5 ms)",
            first,
            limit,
            "ms",
        ),
        Bar("stream: chunks held back", held, max(noise, _STRAY), "share"),
        Bar("memory of a worker, first to last mark", grown, 0.05, "share"),
    ]


def warnings(systems: Mapping[str, Any], others_cores: float) -> list[str]:
    """What a reader of the figures must know: errors, answers from the wrong place, noise."""
    words = []
    for name, measured in systems.items():
        for case in ("miss", "hit"):
            seen = measured.get(case)
            if not seen:
                continue
            if seen["errors"]:
                words.append(f"{name}, {case}: {seen['errors']} of {seen['requests']} failed")
            share = seen["upstream_share"]
            if case == "miss" and share < 0.99:
                words.append(f"{name}, miss: only {share:.1%} of the requests reached the upstream")
            if case == "hit" and share > 0.01:
                words.append(f"{name}, hit: {share:.1%} of the requests reached the upstream")
            receipts = seen.get("receipts_share")
            if name == "tidegate" and (receipts is None or receipts < 0.999):
                words.append(f"{name}, {case}: receipts were not all in the database in time")
    if others_cores > 0.1:
        words.append(f"the machine was not quiet: {others_cores:.2f} cores did other work")
    return words
