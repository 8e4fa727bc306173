"""What a coalesced request does when the leading request failed; pure."""

from __future__ import annotations

import msgspec

from tidegate.gateway.values import Answer


class Next(msgspec.Struct, frozen=True):
    """The next step of a coalesced request: ``again`` is to lead or to wait for the new leader;
    otherwise it calls a model by itself."""

    again: bool
    reason: str


def after_leader(answered: bool, left: float, total: float) -> Next:
    """The next step once the leader is done. ``answered``: it got an answer, which may not be
    cached. ``left``: seconds that this request has, of ``total``."""
    if answered:
        return Next(False, "the answer to this call may not be kept, so each must make its own")
    if left > total / 2:
        return Next(True, "the leader failed: one of those who wait leads, the others wait again")
    return Next(False, "waiting for another leader could leave no time for a call of one's own")


def may_keep(answer: Answer) -> bool:
    """Answers that ended by themselves and asked for no tool. Errors never get this far."""
    return answer.complete and not answer.tool_calls
