"""Which cap holds the length of an answer; pure."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

CapSource: TypeAlias = Literal["spec", "switch", "surge"]


class OutputCap(msgspec.Struct, frozen=True):
    """``tokens``: None is no cap. ``by``: what set it."""

    tokens: int | None
    by: CapSource | None
    reason: str


class PromptCap(msgspec.Struct, frozen=True):
    """A prompt of more ``tokens`` is refused; ``by``: what says so."""

    tokens: int
    by: Literal["spec", "switch", "kill"]


def prompt_cap(spec: int | None, switched: int | None, killed: int | None) -> PromptCap | None:
    """The tightest of the release's cap, an operator's, and a kill of long prompts."""
    caps: tuple[tuple[int | None, Literal["spec", "switch", "kill"]], ...] = (
        (spec, "spec"),
        (switched, "switch"),
        (killed, "kill"),
    )
    in_force = [PromptCap(tokens, by) for tokens, by in caps if tokens is not None]
    return min(in_force, key=lambda cap: cap.tokens, default=None)


def output_cap(
    spec: int | None, switched: int | None, surge: int | None = None, surging: bool = False
) -> OutputCap:
    """The tightest of the caps in force: the release's, one that an operator switched on, and the
    one under load while the load is high."""
    caps: list[tuple[int, CapSource]] = []
    if spec is not None:
        caps.append((spec, "spec"))
    if switched is not None:
        caps.append((switched, "switch"))
    if surge is not None and surging:
        caps.append((surge, "surge"))
    if not caps:
        return OutputCap(None, None, "no cap is in force")
    tokens, by = min(caps, key=lambda cap: cap[0])
    words = {"spec": "the release", "switch": "an operator", "surge": "the load"}
    return OutputCap(tokens, by, f"{words[by]} caps the answer at {tokens} tokens")
