"""Limits: how many requests, tokens and dollars, for whom, in which time."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from tidegate import release
from tidegate.base import duration_text, parse_duration
from tidegate.spec.part import SpecPart
from tidegate.spec.scalars import Items, Name

CalendarWindow = Literal["hour", "day", "week", "month"]
CALENDAR = ("hour", "day", "week", "month")


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _every(value: object) -> object:
    if value in CALENDAR:
        return value
    if not isinstance(value, str) or value.isalpha():
        raise ValueError(f"{value!r} is no time; write hour, day, week, month, or 10s, 1m, 24h")
    seconds = parse_duration(value)
    if not 1 <= seconds <= 366 * 86400:
        raise ValueError(f"{value!r} is out of range; write a time from 1s to 366d")
    return seconds


NameOrNames = Annotated[
    Items[Name], BeforeValidator(_one_or_many, json_schema_input_type=str | list[str])
]


class MatchSpec(SpecPart):
    """Which requests a limit counts; all of them where nothing is named."""

    route: NameOrNames = Field((), examples=["recommend", "[recommend, ask]"])
    """Only requests to this route, or to one of these."""
    model: NameOrNames = Field((), examples=["large"])
    """Only what this model answers, or one of these."""


class LimitSpec(SpecPart, resolves=release.Limit, own=("every", "on_outage")):
    """A rate or a budget. Write exactly one of `requests`, `tokens` and `dollars`."""

    per: Literal["key", "tenant", "route", "model", "app"] = Field(
        "app", examples=["tenant", "key"]
    )
    """Each key, tenant, route or model has this much for itself; `app`: all requests together. Keys
    without a tenant share one."""
    match: MatchSpec = MatchSpec()
    """Which requests count."""
    requests: int | None = Field(None, ge=1, le=10**12, examples=["60"])
    """Most requests. An answer from the cache counts as a request."""
    tokens: int | None = Field(None, ge=1, le=10**12, examples=["200000"])
    """Most tokens, of prompts and completions together. An answer from the cache has none."""
    dollars: float | None = Field(
        None, gt=0, le=1_000_000, allow_inf_nan=False, examples=["50", "0.25"]
    )
    """Most US dollars. A model without a price is not asked under such a limit."""
    every: Annotated[
        float | CalendarWindow,
        BeforeValidator(_every),
        PlainSerializer(lambda v: v if isinstance(v, str) else duration_text(v), when_used="json"),
        WithJsonSchema(
            {
                "title": "duration or calendar window",
                "anyOf": [
                    {"enum": list(CALENDAR)},
                    {"type": "string", "pattern": r"^(\d+(\.\d+)?\s*(us|ms|s|m|h|d|w))+$"},
                ],
            }
        ),
    ] = Field(examples=["day", "1m"])
    """`hour`, `day`, `week` (from Monday) or `month`: a budget for each calendar window in UTC. A
    duration (`1m`, `24h`): a bucket that refills evenly, all of it in that time."""
    burst: float | None = Field(gt=0, le=10**12, allow_inf_nan=False, examples=["10"])
    """Most at once out of a bucket; left out: all of it."""
    on_outage: Literal["open", "closed"] | None = Field(None, examples=["closed"])
    """What happens while the store of the counters is away: `open` lets requests pass uncounted,
    `closed` refuses them (`limits_unavailable`). Left out: `closed` for dollars, else `open`."""

    @property
    def unit(self) -> Literal["requests", "tokens", "dollars"] | None:
        """What is counted; None when it is not exactly one thing."""
        units: tuple[Literal["requests", "tokens", "dollars"], ...]
        units = ("requests", "tokens", "dollars")
        named = [unit for unit in units if getattr(self, unit) is not None]
        return named[0] if len(named) == 1 else None
