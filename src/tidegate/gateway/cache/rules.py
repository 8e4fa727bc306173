"""What a request does whose leader brought nothing; pure."""

from __future__ import annotations

import msgspec

from tidegate.gateway.values import Answer


class Next(msgspec.Struct, frozen=True):
    """``again``: lead, or wait for the one that leads now. Otherwise make a call of one's own."""

    again: bool
    reason: str


def after_leader(answered: bool, left: float, total: float) -> Next:
    """``answered``: the leader got an answer, which may not be kept. ``left``: seconds that this
    request has, of ``total``."""
    if answered:
        return Next(False, "the answer to this call may not be kept, so each must make its own")
    if left > total / 2:
        return Next(True, "the leader failed: one of those who wait leads, the others wait again")
    return Next(False, "waiting for another leader could leave no time for a call of one's own")


def may_keep(answer: Answer) -> bool:
    """Answers that ended by themselves and asked for no tool. Errors never get this far."""
    return answer.complete and not answer.tool_calls
