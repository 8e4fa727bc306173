"""Hold answers against the checks of their route; pure."""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.base import RequestError
from tidegate.gateway.neutral import AnswerFacts, Transcript
from tidegate.gateway.plan import OUTPUT_INVALID, AnswerCheck, broken


def require(checks: Sequence[AnswerCheck], model: str, said: AnswerFacts) -> None:
    """Raises RequestError ``output_invalid`` when an answer does not hold to all checks."""
    fault = broken(checks, said)
    if fault is not None:
        raise refused(model, fault)


def refused(model: str, fault: str) -> RequestError:
    return RequestError(
        502,
        OUTPUT_INVALID,
        f"the answer of model {model!r} {fault}",
        cure="retry, raise caps.output_tokens, or use a model that keeps to schemas",
    )


class StreamGuard:
    """The checks that look at a stream while it runs, each over its own window of the newest text.
    What they object to is not sent."""

    def __init__(self, checks: Sequence[AnswerCheck], model: str) -> None:
        self._checks = [check for check in checks if check.window]
        self._model = model
        self._longest = max((check.window for check in self._checks), default=0)
        self._tail = ""
        self._at = 0

    @property
    def looks(self) -> bool:
        """Whether any check looks at streams at all."""
        return bool(self._checks)

    def look(self, said: Transcript) -> None:
        """Raises RequestError ``output_invalid`` for what came since the last look."""
        new, self._at = said.text_since(self._at)
        if not new:
            return
        seen = self._tail + new
        for check in self._checks:
            # What was looked at before comes along, so that a phrase cut by two events is seen.
            fault = check.part(seen[-(check.window + len(new)) :])
            if fault is not None:
                raise refused(self._model, fault)
        self._tail = seen[-self._longest :]
