"""The chain of a request: the route's model, then its fallbacks, but those that cannot do what it
needs; pure, with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from tidegate.gateway.ports import Ask
from tidegate.release import Model

_BEYOND_REASON = 10**12


class Candidate(Protocol):
    """Who may answer."""

    @property
    def model(self) -> Model: ...


T = TypeVar("T", bound=Candidate)


class Chain(msgspec.Struct, Generic[T], frozen=True):
    """Targets in the order in which they are tried, and why this order."""

    targets: Sequence[T]
    reason: str


class Need(msgspec.Struct, frozen=True):
    """What a request asks of a model beside text."""

    tokens: int
    """Of the prompt, four bytes each, and of the answer where it has a cap. Messages with images
    are not counted: their bytes say nothing of tokens."""
    features: frozenset[str]
    """Of ``tools``, ``schema`` and ``images``."""


def need_of(ask: Ask) -> Need:
    dialect, fields = ask.dialect, ask.fields
    features = dialect.needs(fields)
    output = dialect.worst_output(fields)
    size = len(ask.prompt) + dialect.tools_size(fields)
    prompt = 0 if "images" in features else size // 4
    # A length beyond reason, or none at all, is left to the model, which says so itself.
    return Need(prompt + (output if 0 < output < _BEYOND_REASON else 0), features)


def misfit(model: Model, need: Need) -> str | None:
    """Why ``model`` cannot do what is needed, as far as the spec says; None when it can."""
    missing = sorted(need.features.difference(model.can)) if model.can is not None else []
    if missing:
        return f"{model.name} has no {' and no '.join(missing)}"
    if model.context is not None and need.tokens > model.context:
        return f"{model.name} has room for {model.context} tokens, about {need.tokens} are needed"
    return None


def choose(targets: Sequence[T], ask: Ask) -> Chain[T]:
    """A fixed route: the first model answers, the others stand in for it, in the spec's order.
    What the request needs is looked at only where there is a choice."""
    if len(targets) == 1:
        return Chain(targets, "fixed")
    return among(targets, need_of(ask))


def among(targets: Sequence[T], need: Need) -> Chain[T]:
    """The candidates that can do what is needed; when none can, all are asked and refuse by
    themselves."""
    words = [misfit(target.model, need) for target in targets]
    fit = [target for target, why in zip(targets, words, strict=True) if why is None]
    if not fit or len(fit) == len(targets):
        fit = list(targets)
        words = []
    reason = "fixed" if len(fit) == 1 else f"fixed, {len(fit) - 1} to fall back on"
    return Chain(fit, "; ".join([reason, *filter(None, words)]))
