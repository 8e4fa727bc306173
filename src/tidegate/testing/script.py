"""Which request meets which fault: an ordered list of steps, the first that fits is played."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import msgspec

from tidegate.base import UsageError, parse_duration
from tidegate.testing import faults
from tidegate.testing.faults import Fault
from tidegate.testing.seen import SeenRequest
from tidegate.testing.timings import Timing, parse_timing

FAULT_HEADER = "x-mock-fault"
"""A request can bring its own fault in this header, in the words of ``parse_fault``."""


def has_prefill(request: SeenRequest) -> bool:
    """The conversation ends with the assistant's words, which the model shall continue."""
    messages = request.json.get("messages") or [{}]
    return bool(messages[-1].get("role") == "assistant")


PREDICATES: dict[str, Callable[[SeenRequest], bool]] = {
    "prefill": has_prefill,
    "stream": lambda request: bool(request.json.get("stream")),
}
"""Words for ``when`` in a step that is written as a text."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """Play ``fault`` for the requests that meet every condition given here (none: for all).

    Requests are counted from 0 in order of arrival. ``after`` and ``first`` bound the count,
    ``every`` takes each n-th (every=10: 9, 19, ...), ``rate`` a share of them by the seed.
    ``times`` ends the step once it was played so often. ``after_seconds`` and ``until_seconds``
    bound the time since the server was made or reset, or the time in each period where
    ``period_seconds`` says how long one is (a burst).
    """

    fault: Fault
    indexes: tuple[int, ...] | None = None
    first: int | None = None
    after: int | None = None
    every: int | None = None
    rate: float | None = None
    times: int | None = None
    after_seconds: float | None = None
    until_seconds: float | None = None
    period_seconds: float | None = None
    key: str | None = None
    """The provider key that the request brings."""
    model: str | None = None
    path: str | None = None
    when: Callable[[SeenRequest], bool] | None = None

    def fits(self, request: SeenRequest, model: str, seed: int, place: int = 0) -> bool:
        """Whether it is for this request; ``place`` is that of the step in its script, so that the
        shares of two steps are drawn apart."""
        at, now = request.index, request.at
        if self.period_seconds is not None:
            now %= self.period_seconds
        return (
            (self.indexes is None or at in self.indexes)
            and (self.first is None or at < self.first)
            and (self.after is None or at >= self.after)
            and (self.every is None or (at + 1) % self.every == 0)
            and (self.after_seconds is None or now >= self.after_seconds)
            and (self.until_seconds is None or now < self.until_seconds)
            and (self.key is None or request.key == self.key)
            and (self.model is None or model == self.model)
            and (self.path is None or request.path.startswith(self.path))
            and (self.rate is None or _share(seed, at, place) < self.rate)
            and (self.when is None or self.when(request))
        )


def _share(seed: int, at: int, place: int) -> float:
    return random.Random(f"{seed}/{at}/{place}" if place else f"{seed}/{at}").random()


@dataclasses.dataclass(frozen=True, slots=True)
class Script:
    """Steps in order; an empty script never fails."""

    steps: tuple[Step, ...] = ()

    @classmethod
    def of(cls, *steps: Step | Fault | str) -> Script:
        """Steps, bare faults (for every request) and texts as of ``parse_step``, in any mix."""
        return cls(tuple(_as_step(step) for step in steps))

    def fault_for(
        self, request: SeenRequest, model: str, seed: int, played: Counter[int] | None = None
    ) -> Fault | None:
        """The fault of the request's own header, else of the first step that fits. ``played``
        counts how often each step was, for those that end.

        Raises UsageError ``fault_unreadable`` for a header that names no fault.
        """
        asked = request.headers.get(FAULT_HEADER)
        if asked is not None:
            return parse_step(asked).fault
        played = Counter() if played is None else played
        for at, step in enumerate(self.steps):
            spent = step.times is not None and played[at] >= step.times
            if not spent and step.fits(request, model, seed, at):
                played[at] += 1
                return step.fault
        return None


def _as_step(step: Step | Fault | str) -> Step:
    if isinstance(step, Step):
        return step
    return parse_step(step) if isinstance(step, str) else Step(fault=step)


_CONDITIONS: dict[str, Callable[[str], Any]] = {
    "index": lambda text: tuple(int(part) for part in text.split(",")),
    "first": int,
    "after": int,
    "every": int,
    "rate": float,
    "times": int,
    "after_seconds": float,
    "until_seconds": float,
    "period_seconds": float,
    "key": str,
    "model": str,
    "path": str,
    "when": lambda text: PREDICATES[_one_of(tuple(PREDICATES), text)],
}

_Word = TypeVar("_Word", bound=str)
_BODIES: tuple[Literal["empty", "truncated", "html"], ...] = ("empty", "truncated", "html")
_MUTATIONS: tuple[Literal["drop", "rename", "retype", "break"], ...] = (
    *("drop", "rename", "retype", "break"),
)
_RETRY_FORMS = ("seconds", "date", "milliseconds")
_THEN = ("close", "resume")

_FAULTS: dict[str, Callable[[str], Fault]] = {
    "status": lambda v: faults.Refuse(status=int(v)),
    "context_length": lambda _: faults.Refuse.context_length(),
    "content_policy": lambda _: faults.Refuse.content_policy(),
    "key_revoked": lambda _: faults.Refuse.key_revoked(),
    "key_forbidden": lambda _: faults.Refuse.key_forbidden(),
    "quota": lambda _: faults.Refuse.quota(),
    "prefill": lambda _: faults.Refuse.prefill(),
    "loading": lambda _: faults.Refuse.loading(),
    "reset": lambda _: faults.Reset(),
    "hang": lambda v: faults.Hang(parse_duration(v) if v else None),
    "silence": lambda _: faults.Silence(),
    "slow_first_token": lambda v: faults.SlowFirstToken(_timing(v)),
    "slow_tokens": lambda v: faults.SlowTokens(parse_duration(v or "1s")),
    "cut": lambda v: faults.Cut(int(v or 3)),
    "stall": lambda v: faults.Stall(int(v or 3)),
    "invalid_event": lambda v: faults.InvalidEvent(int(v or 3)),
    "duplicate": lambda v: faults.DuplicateEvent(int(v or 3)),
    "bad_body": lambda v: faults.BadBody(_one_of(_BODIES, v or "empty")),
    "missing_field": lambda v: faults.MissingField(v or "choices"),
    "mutate": lambda v: faults.Mutate(_one_of(_MUTATIONS, v or "drop")),
    "filtered": lambda v: faults.Filtered(int(v or 3)),
    "missing_done": lambda _: faults.MissingDone(),
    "error_event": lambda v: faults.ErrorEvent(int(v or 3)),
    "drip": lambda v: faults.Drip(parse_duration(v or "20ms")),
    "no_usage": lambda _: faults.NoUsage(),
    "usage_with_choices": lambda _: faults.UsageWithChoices(),
}

_DETAILS: dict[str, Callable[[str], Any]] = {
    "retry_after": lambda text: parse_duration(text) if text[-1:].isalpha() else float(text),
    "retry_form": lambda text: _one_of(_RETRY_FORMS, text),
    "code": str,
    "how": str,
    "size": int,
    "seconds": lambda text: parse_duration(text) if text[-1:].isalpha() else float(text),
    "then": lambda text: _one_of(_THEN, text),
}


def _timing(text: str) -> float | Timing:
    """A plain duration stays a number."""
    return parse_timing(text) if ":" in text else parse_duration(text)


def _one_of(known: tuple[_Word, ...], word: str) -> _Word:
    for one in known:
        if one == word:
            return one
    raise ValueError(f"choose from {', '.join(known)}")


def parse_step(text: str) -> Step:
    """Words ``name`` or ``name=value``: one fault, its details, and any conditions.

    ``every=10 status=429 retry_after=2``, ``index=0,1 reset``, ``model=large cut=5 how=clean``.
    Raises UsageError ``fault_unreadable``.
    """
    fault: Fault | None = None
    conditions: dict[str, Any] = {}
    details: dict[str, Any] = {}
    for word in text.split():
        name, _, value = word.partition("=")
        try:
            if name in _FAULTS and fault is None:
                fault = _FAULTS[name](value)
            elif name in _CONDITIONS:
                conditions["indexes" if name == "index" else name] = _CONDITIONS[name](value)
            elif name in _DETAILS:
                details[name] = _DETAILS[name](value)
            else:
                raise ValueError("no such word, or a second fault")
        except ValueError as error:
            raise _unreadable(text, f"{word!r}: {error}") from None
    if fault is None:
        raise _unreadable(text, "it names no fault")
    if not set(details) <= set(fault.__struct_fields__):
        raise _unreadable(text, f"{fault.name} takes {', '.join(fault.__struct_fields__)}")
    return Step(fault=msgspec.structs.replace(fault, **details), **conditions)


def _unreadable(text: str, why: str) -> UsageError:
    return UsageError(
        "fault_unreadable",
        f"{text!r} is not a fault: {why}",
        cure="write for example 'every=10 status=429 retry_after=2'; "
        f"faults: {', '.join(_FAULTS)}; "
        f"conditions: {', '.join(_CONDITIONS)}",
    )
