"""Money is US dollars; an unknown price is None and stays None, never 0."""

from __future__ import annotations

import msgspec


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """US dollars per million tokens. None means unknown; 0 means free.

    A price that this version does not know is refused: left out, it would count as nothing."""

    input: float | None = None
    output: float | None = None
    cached_input: float | None = None
    """Price of prompt tokens read from the provider's own cache; None: as ``input``."""


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens of one call. ``cached`` is the part of ``prompt`` read from the provider's cache,
    ``reasoning`` the part of ``completion`` that was not shown."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0
    estimated: bool = False
    """True when the provider sent no numbers and these were counted here."""


_MOST_TOKENS = 1 << 40
"""More than any call can have: a larger report is a provider's error, not a bill."""


def reported_usage(
    prompt: int | None,
    completion: int | None,
    cached: int | None = None,
    reasoning: int | None = None,
) -> Usage | None:
    """The usage that a provider reports; None when it reports none, or an impossible one (below 0
    or beyond reason): unknown is not 0."""
    if prompt is None and completion is None:
        return None
    prompt, completion = prompt or 0, completion or 0
    if not (0 <= prompt <= _MOST_TOKENS and 0 <= completion <= _MOST_TOKENS):
        return None
    return Usage(
        prompt=prompt,
        completion=completion,
        cached=cached if cached and 0 < cached <= prompt else 0,
        reasoning=reasoning if reasoning and 0 < reasoning <= completion else 0,
    )


def estimated_usage(prompt: bytes, text: str, written: int = 0) -> Usage:
    """Tokens of an answer whose provider sent no numbers, marked as estimated. ``written``:
    characters of all that the model wrote, where that is more than ``text``: thoughts, calls of
    tools, other choices.

    Four bytes a token: it costs nothing, and no vocabulary here is that of the provider's model.
    """
    return Usage(
        prompt=-(-len(prompt) // 4),
        completion=-(-max(len(text.encode()), written) // 4),
        estimated=True,
    )


def cost_of(usage: Usage, price: Price) -> float | None:
    """US dollars for ``usage``, or None as soon as one price that is needed is unknown."""
    cached_price = price.input if price.cached_input is None else price.cached_input
    total = 0.0
    for tokens, rate in (
        (usage.prompt - usage.cached, price.input),
        (usage.cached, cached_price),
        (usage.completion, price.output),
    ):
        if tokens > 0:
            # An unknown price of tokens that were used makes the sum unknown: counted as 0, a
            # budget would never run out.
            if rate is None:
                return None
            total += tokens * rate
    return total / 1_000_000
