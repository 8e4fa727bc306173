"""Which limits a route has, what a request may use at worst, and the words of a refusal; pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import msgspec

from tidegate.base.durations import format_duration
from tidegate.base.errors import RequestError
from tidegate.gateway.values import Line
from tidegate.gateway.wire.openai import ChatHead, EmbeddingsHead
from tidegate.release.values import Limit, Model, Route
from tidegate.stores.reservations import ReservationTerms
from tidegate.stores.windows import KEEP, NANO, Unit, Window, grain_of, limit_stem

DEFAULT_OUTPUT = 4096
"""Completion tokens that a request may use when neither it nor its route says how many."""
LEASE_BEYOND = 10.0
"""Seconds that a lease outlives the deadline of its request."""
_MOST_TOKENS = 1 << 40


class RouteLimits(msgspec.Struct, frozen=True):
    """The limits of one route. Bits stand for the models that may be asked, the first is 1."""

    lines: tuple[Line, ...]
    models: tuple[str, ...]
    terms: ReservationTerms
    """With the bits of all models, none of them barred."""
    unpriced: int
    """The bits of models that a limit in dollars covers and whose price is not known."""
    charges: tuple[Line, ...]
    """Of the lines those that count a request whatever becomes of it."""


class Worst(msgspec.Struct, frozen=True):
    """Tokens that a request may use at worst."""

    prompt: int
    output: int


def limits_of(
    limits: Mapping[str, Limit], route: Route, models: Mapping[str, Model]
) -> RouteLimits | None:
    """The limits that count requests to ``route``; None when there is none, and nothing to do."""
    lines: list[Line] = []
    unpriced = 0
    for limit in limits.values():
        if limit.routes and route.name not in limit.routes:
            continue
        covered = [name for name in route.models if not limit.models or name in limit.models]
        if not covered:
            continue
        parts = [[name] for name in covered] if limit.per == "model" else [covered]
        lines += [_line(limit, route, part, models) for part in parts]
        if limit.unit == "dollars":
            for name in covered:
                if not _priced(models[name]):
                    unpriced |= 1 << route.models.index(name)
    if not lines:
        return None
    lease = route.timeouts.total + LEASE_BEYOND
    every = (1 << len(route.models)) - 1
    return RouteLimits(
        lines=tuple(lines),
        models=route.models,
        terms=ReservationTerms(
            int(lease * 1000),
            grain_of(lease),
            every,
            limits=",".join(f"{line.capacity}/{line.rate}/{line.charge:d}" for line in lines),
        ),
        unpriced=unpriced,
        charges=tuple(line for line in lines if line.charge),
    )


def bits_of(limits: RouteLimits, models: Collection[str]) -> int:
    """The bits of those of ``models`` that the route has."""
    return sum(1 << at for at, name in enumerate(limits.models) if name in models)


def _line(limit: Limit, route: Route, covered: Sequence[str], models: Mapping[str, Model]) -> Line:
    scale = NANO if limit.unit == "dollars" else 1
    capacity = round((limit.amount if limit.burst is None else limit.burst) * scale)
    rate = 0.0 if limit.every is None else limit.amount * scale / (limit.every * 1000)
    prices = [models[name].price for name in covered]
    whole = len(covered) == len(route.models)
    by_model = limit.per == "model" or bool(limit.models)
    fixed = {"route": route.name, "model": covered[0], "app": "app"}.get(limit.per)
    return Line(
        name=limit.name,
        stem=limit_stem(limit.name, limit.unit),
        unit=limit.unit,
        calendar=limit.calendar,
        per=limit.per,
        scope=fixed,
        covers=(1 << len(route.models)) - 1
        if whole
        else sum(1 << route.models.index(name) for name in covered),
        models=frozenset(covered),
        charge=limit.unit == "requests" and not by_model,
        capacity=capacity,
        rate=rate,
        ttl=KEEP + (0 if rate == 0 else math.ceil(capacity / rate)) + _lease_ms(route),
        closed=limit.on_outage == "closed",
        # Dollars a million tokens are a thousand billionths a token.
        prompt_nano=max((price.input or 0.0) for price in prices) * 1000,
        output_nano=max((price.output or 0.0) for price in prices) * 1000,
        most=(
            f"x-ratelimit-limit-{limit.unit}",
            f"{capacity / NANO:.6f}" if limit.unit == "dollars" else str(capacity),
        ),
        remaining=f"x-ratelimit-remaining-{limit.unit}",
        reset=f"x-ratelimit-reset-{limit.unit}",
    )


def _lease_ms(route: Route) -> int:
    return int((route.timeouts.total + LEASE_BEYOND) * 1000)


def _priced(model: Model) -> bool:
    price = model.price
    return price.input is not None and (model.kind == "embeddings" or price.output is not None)


def worst_case(upstream: Mapping[str, bytes], head: ChatHead | EmbeddingsHead | None) -> Worst:
    """Four bytes a token for the prompt, as the ledger estimates too; for the answer its cap, once
    for each choice."""
    if not isinstance(head, ChatHead):
        return Worst(-(-len(upstream.get("input", b"")) // 4), 0)
    size = len(upstream.get("messages", b"")) + len(upstream.get("tools", b""))
    output = -1
    for name in _LENGTHS:
        if name in upstream:
            output = max(output, _length(upstream[name]))
    if output < 0:
        output = DEFAULT_OUTPUT
    if head.n is not None and head.n > 1:
        output = min(output * head.n, _MOST_TOKENS)
    return Worst(-(-size // 4), output)


_LENGTHS = ("max_completion_tokens", "max_tokens", "n_predict")


def _length(value: bytes) -> int:
    """The length that is asked for, in any spelling of a number: ``1e5`` is no less than 100000.
    -1 for what is no length, and for less than 0, which asks for no bound in particular."""
    try:
        number = float(value)
    except ValueError:
        return -1
    return -1 if number < 0 else int(min(number, _MOST_TOKENS))


def amount_of(line: Line, worst: Worst) -> int:
    """What ``worst`` is in the unit of the line."""
    if line.unit == "requests":
        return 1
    if line.unit == "tokens":
        return worst.prompt + worst.output
    return math.ceil(worst.prompt * line.prompt_nano + worst.output * line.output_nano)


def shown(unit: Unit, amount: float) -> str:
    """``amount`` of a counter as people read it."""
    if unit == "dollars":
        return f"${amount / NANO:.6f}".rstrip("0").rstrip(".")
    return f"{amount:,.0f} {unit if amount != 1 else unit[:-1]}"


def words(line: Line, window: Window, at: float, used: int, reserved: int, amount: int) -> str:
    """What the limit allows, what is gone of it, and what was asked."""
    whose = "all requests" if line.per == "app" else f"this {line.per}"
    allowed = shown(line.unit, line.capacity)
    span = f"each {line.calendar} (UTC)" if line.calendar else "at once"
    under_way = f" and {shown(line.unit, reserved)} reserved for requests under way and to come"
    return (
        f"limit {line.name} allows {whose} {allowed} {span}: "
        f"{shown(line.unit, used)} used{under_way if reserved else ''}, "
        f"this request may need {shown(line.unit, amount)}"
    )


def wait_seconds(
    line: Line, window: Window, at: float, used: int, reserved: int, amount: int
) -> int:
    """Whole seconds after which asking again makes sense: a second when only reserved amounts are
    in the way, else until the bucket has enough or the window ends."""
    if used + amount <= line.capacity:
        return 1
    if line.rate > 0:
        return max(1, math.ceil((used + amount - line.capacity) / line.rate / 1000))
    return max(1, math.ceil(window.end - at))


def refusal(
    line: Line, window: Window, at: float, used: int, reserved: int, amount: int
) -> RequestError:
    """The 429 of a limit that has not enough left."""
    seconds = wait_seconds(line, window, at, used, reserved, amount)
    told = words(line, window, at, used, reserved, amount)
    when = f"retry in {format_duration(seconds)}"
    if line.calendar and used + amount > line.capacity:
        when += f", when the {line.calendar} ends"
    after = str(seconds)
    if line.unit == "requests":
        return RequestError(429, "limit_requests", told, cure=when, retry_after=after)
    if line.unit == "tokens":
        cure = f"{when}, or lower max_tokens"
        return RequestError(429, "limit_tokens", told, cure=cure, retry_after=after)
    return RequestError(
        429, "limit_dollars", told, cure=f"{when}, or lower max_tokens", retry_after=after
    )


def never_fits(line: Line, amount: int) -> RequestError:
    """The refusal of a request that is larger than the whole limit."""
    most = shown(line.unit, line.capacity)
    return RequestError(
        400,
        "limit_too_small",
        f"this request may need {shown(line.unit, amount)}, and limit {line.name} allows {most} "
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
    lines: Sequence[Line], windows: Sequence[Window], left: Sequence[int], at: float
) -> list[tuple[str, str]]:
    """``x-ratelimit-*`` as OpenAI sends them: of each unit the limit with the least left."""
    if len(lines) == 1:
        return _told(lines[0], windows[0], left[0], at) if left[0] >= 0 else []
    tightest: dict[str, int] = {}
    for place, line in enumerate(lines):
        rest = left[place]
        if rest >= 0 and (line.unit not in tightest or rest < left[tightest[line.unit]]):
            tightest[line.unit] = place
    told: list[tuple[str, str]] = []
    for place in tightest.values():
        told += _told(lines[place], windows[place], left[place], at)
    return told


def _told(line: Line, window: Window, rest: int, at: float) -> list[tuple[str, str]]:
    seconds = (line.capacity - rest) / line.rate / 1000 if line.rate else window.end - at
    return [
        line.most,
        (line.remaining, "%.6f" % (rest / NANO) if line.unit == "dollars" else str(rest)),
        (line.reset, "%.3fs" % (seconds if seconds > 0 else 0.0)),
    ]
