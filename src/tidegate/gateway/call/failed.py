"""How a try that gave no answer is told to whoever made it."""

from __future__ import annotations

from tidegate.gateway.call.rules import Failure

LEFT = Failure("client_gone", "the client left", 499, False)
HEDGE_LOST = "hedge_lost"
"""Code of the attempt that was left because the other one answered first."""


class AttemptFailed(Exception):
    """One model gave no answer."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.words)
        self.failure = failure
