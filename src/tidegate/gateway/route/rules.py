"""The chain of a request: the route's model, then its fallbacks, but those that cannot do what it
needs; pure, with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from tidegate.release.values import Model


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


def need_of(upstream: Mapping[str, bytes]) -> Need:
    """``upstream``: the fields of the request as they go to a model, each as JSON."""
    messages = upstream.get("messages", upstream.get("input", b""))
    tools = upstream.get("tools", b"")
    features = set()
    if len(tools) > 2 and tools != b"null":
        features.add("tools")
    if b'"json_schema"' in upstream.get("response_format", b""):
        features.add("schema")
    if b'"image_url"' in messages:
        features.add("images")
    cap = upstream.get("max_completion_tokens", upstream.get("max_tokens", b"0"))
    output = int(cap) if cap.isdigit() and len(cap) < 16 else 0
    prompt = 0 if "images" in features else (len(messages) + len(tools)) // 4
    return Need(prompt + output, frozenset(features))


def misfit(model: Model, need: Need) -> str | None:
    """Why ``model`` cannot do what is needed, as far as the spec says; None when it can."""
    missing = sorted(need.features.difference(model.can)) if model.can is not None else []
    if missing:
        return f"{model.name} has no {' and no '.join(missing)}"
    if model.context is not None and need.tokens > model.context:
        return f"{model.name} has room for {model.context} tokens, about {need.tokens} are needed"
    return None


def choose(targets: Sequence[T], upstream: Mapping[str, bytes]) -> Chain[T]:
    """A fixed route: the first model answers, the others stand in for it, in the spec's order.
    What the fields of the request (``upstream``) need is looked at only where there is a choice."""
    if len(targets) == 1:
        return Chain(targets, "fixed")
    return among(targets, need_of(upstream))


def among(targets: Sequence[T], need: Need) -> Chain[T]:
    """Those that can do what is needed; where nobody can, all are asked and say so themselves."""
    words = [misfit(target.model, need) for target in targets]
    fit = [target for target, why in zip(targets, words, strict=True) if why is None]
    if not fit or len(fit) == len(targets):
        fit = list(targets)
        words = []
    reason = "fixed" if len(fit) == 1 else f"fixed, {len(fit) - 1} to fall back on"
    return Chain(fit, "; ".join([reason, *filter(None, words)]))
