"""What a request may use of its limits at worst, and the words of a refusal; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from tidegate.base import RequestError, format_duration
from tidegate.gateway.plan import CountedLimit
from tidegate.gateway.ports import Ask
from tidegate.stores import NANO, Unit, Window

DEFAULT_OUTPUT = 4096
"""Completion tokens that a request may use when neither it nor its route says how many."""
_MOST_TOKENS = 1 << 40


class Worst(msgspec.Struct, frozen=True):
    """Tokens that a request may use at worst."""

    prompt: int
    output: int


def worst_case(ask: Ask) -> Worst:
    """Four bytes a token for the prompt, as the ledger estimates too; for the answer its cap, once
    for each choice."""
    size = len(ask.prompt) + ask.dialect.tools_size(ask.fields)
    output = ask.dialect.worst_output(ask.fields)
    if output < 0:
        output = DEFAULT_OUTPUT
    return Worst(-(-size // 4), min(output * max(1, ask.choices), _MOST_TOKENS))


def amount_of(limit: CountedLimit, worst: Worst) -> int:
    """The worst case in the unit of the limit."""
    if limit.unit == "requests":
        return 1
    if limit.unit == "tokens":
        return worst.prompt + worst.output
    return math.ceil(worst.prompt * limit.prompt_nano + worst.output * limit.output_nano)


def shown(unit: Unit, amount: float) -> str:
    """``amount`` of a counter as people read it."""
    if unit == "dollars":
        return f"${amount / NANO:.6f}".rstrip("0").rstrip(".")
    return f"{amount:,.0f} {unit if amount != 1 else unit[:-1]}"


def wording(
    limit: CountedLimit, window: Window, at: float, used: int, reserved: int, amount: int
) -> str:
    """The sentence of a refusal: what the limit allows, what is gone of it, what was asked."""
    whose = "all requests" if limit.per == "app" else f"this {limit.per}"
    allowed = shown(limit.unit, limit.capacity)
    span = f"each {limit.calendar} (UTC)" if limit.calendar else "at once"
    under_way = f" and {shown(limit.unit, reserved)} reserved for requests under way and to come"
    return (
        f"limit {limit.name} allows {whose} {allowed} {span}: "
        f"{shown(limit.unit, used)} used{under_way if reserved else ''}, "
        f"this request may need {shown(limit.unit, amount)}"
    )


def wait_seconds(
    limit: CountedLimit, window: Window, at: float, used: int, reserved: int, amount: int
) -> int:
    """Whole seconds after which asking again makes sense: a second when only reserved amounts are
    in the way, else until the bucket has enough or the window ends."""
    if used + amount <= limit.capacity:
        return 1
    if limit.rate > 0:
        return max(1, math.ceil((used + amount - limit.capacity) / limit.rate / 1000))
    return max(1, math.ceil(window.end - at))


def refusal(
    limit: CountedLimit, window: Window, at: float, used: int, reserved: int, amount: int
) -> RequestError:
    """The 429 of a limit that has not enough left."""
    seconds = wait_seconds(limit, window, at, used, reserved, amount)
    told = wording(limit, window, at, used, reserved, amount)
    when = f"retry in {format_duration(seconds)}"
    if limit.calendar and used + amount > limit.capacity:
        when += f", when the {limit.calendar} ends"
    after = str(seconds)
    if limit.unit == "requests":
        return RequestError(429, "limit_requests", told, cure=when, retry_after=after)
    if limit.unit == "tokens":
        cure = f"{when}, or lower max_tokens"
        return RequestError(429, "limit_tokens", told, cure=cure, retry_after=after)
    return RequestError(
        429, "limit_dollars", told, cure=f"{when}, or lower max_tokens", retry_after=after
    )


def never_fits(limit: CountedLimit, amount: int) -> RequestError:
    """The refusal of a request that is larger than the whole limit."""
    most = shown(limit.unit, limit.capacity)
    return RequestError(
        400,
        "limit_too_small",
        f"this request may need {shown(limit.unit, amount)}, and limit {limit.name} allows {most} "
        "in all: it could never pass",
        cure="lower max_tokens, or send a shorter prompt",
        param="max_tokens",
    )


def no_price(models: Sequence[str]) -> RequestError:
    """The refusal under a limit in dollars when no model that may answer has a known price."""
    return RequestError(
        503,
        "price_unknown",
        f"a limit in dollars counts this request, and the price of {', '.join(models)} is unknown",
        cure="the operator writes the price in tidegate.yaml, 0 where it is free",
    )


def unavailable(names: Sequence[str]) -> RequestError:
    """The refusal of limits that are closed while their counters cannot be reached."""
    return RequestError(
        503,
        "limits_unavailable",
        f"the counters of limit {', '.join(names)} cannot be reached, and it is closed then",
        cure="retry in a moment",
        retry_after="1",
    )


def headers(
    limits: Sequence[CountedLimit], windows: Sequence[Window], left: Sequence[int], at: float
) -> list[tuple[str, str]]:
    """``x-ratelimit-*`` as OpenAI sends them: of each unit the limit with the least left."""
    if len(limits) == 1:
        return _told(limits[0], windows[0], left[0], at) if left[0] >= 0 else []
    tightest: dict[str, int] = {}
    for place, limit in enumerate(limits):
        rest = left[place]
        if rest >= 0 and (limit.unit not in tightest or rest < left[tightest[limit.unit]]):
            tightest[limit.unit] = place
    told: list[tuple[str, str]] = []
    for place in tightest.values():
        told += _told(limits[place], windows[place], left[place], at)
    return told


def _told(limit: CountedLimit, window: Window, rest: int, at: float) -> list[tuple[str, str]]:
    seconds = (limit.capacity - rest) / limit.rate / 1000 if limit.rate else window.end - at
    return [
        limit.most,
        (limit.remaining, "%.6f" % (rest / NANO) if limit.unit == "dollars" else str(rest)),
        (limit.reset, "%.3fs" % (seconds if seconds > 0 else 0.0)),
    ]
