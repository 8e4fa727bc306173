"""Money is US dollars; an unknown price is None and stays None, never 0."""

from __future__ import annotations

import msgspec


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """US dollars per million tokens. None means unknown; 0 means free."""

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
            if rate is None:
                return None
            total += tokens * rate
    return total / 1_000_000
