"""The meaning of a failed attempt: whether another model may be asked, and what the client gets.
Pure, but for the exception that carries it."""

from __future__ import annotations

import math
import re

import msgspec

from tidegate.base import RequestError, Usage
from tidegate.gateway.wire.upstream import FAULTS, UpstreamFault


class Failure(msgspec.Struct, frozen=True):
    """One attempt that gave no answer."""

    code: str
    words: str
    status: int
    """The status that the client gets when no other model can answer."""
    fall_back: bool
    """Whether another model may be asked."""
    upstream_status: int | None = None
    retry_after: str | None = None
    usage: Usage | None = None
    """What the attempt is billed all the same: an answer that broke off had begun."""
    model: str | None = None
    """The model that failed, where it is not the one that was asked first: a hedge."""
    again: bool = False
    """Whether the same model may be asked again: what failed may pass, and was not paid for."""
    wait: float | None = None
    """Seconds after which it can be asked again, as the provider or the breaker says."""

    @property
    def policy(self) -> bool:
        """Whether a provider's policy refused the request: no other model is asked, and the client
        gets it."""
        return self.code == "content_policy_violation"

    def error(self, model: str) -> RequestError:
        """The refusal for the client, naming the model that failed first."""
        cure = _CURES.get(self.code, "retry later, or give the route a fallback model")
        if self.status in _FOR_GOOD:  # sent again as it is, it is refused again
            cure = _CURES.get(self.code, "change the request as the message says")
        return RequestError(
            self.status,
            self.code,
            f"model {model!r}: {self.words}",
            cure=cure,
            retry_after=self.retry_after if self.wait is None else str(math.ceil(self.wait)),
        )


_FOR_GOOD = (400, 413, 422)
"""Statuses that a client gets again when it sends the request again as it is."""


def first_to_tell(first: RequestError | None, later: RequestError) -> RequestError:
    """The failure that the client gets of two: the first. But a model that found the prompt too
    long does not speak for one that has room for it and is away: that may pass, is stood in for,
    and must not be kept for good under an idempotency key."""
    if first is None:
        return later
    return later if first.status in _FOR_GOOD and later.status not in _FOR_GOOD else first


_CURES = {
    "context_length_exceeded": "send a shorter prompt, or route to a model with a larger context",
    "content_policy_violation": "change the request; no other model is asked about it",
    "upstream_rate_limited": "retry after the time in retry-after",
    "upstream_key_rejected": "the operator must store a valid key for this model",
    "upstream_breaker_open": "retry after the time in retry-after, or give the route a fallback",
    "output_invalid": "retry, raise caps.output_tokens, or use a model that keeps to schemas",
    "upstream_unreachable": "check that the model's base_url is right and its server is up",
}


_REFUSALS = frozenset(("context_length_exceeded", "content_policy_violation"))
"""What a provider says of the request itself, inside a stream too."""
_CODE = re.compile(r"[A-Za-z][a-z0-9_.]{0,63}")


_POLICY = frozenset(("content_policy_violation", "content_filter"))
"""What a provider says of a request that its policy refuses; with 403 too, which then says nothing
of the key: it neither rests nor is another one tried."""
_USED_UP = frozenset(("insufficient_quota", "billing_hard_limit_reached"))
"""Error codes of a key whose quota is used up: waiting does not help."""


def of_fault(fault: UpstreamFault) -> Failure:
    """A fault of the connection or of the stream: another model may be asked, in time."""
    if fault.said is not None:
        told = of_status(400, fault.said, fault.words, None)
        if told.code in _REFUSALS:
            return told
    in_time = fault.code != "upstream_total_timeout"
    again = fault.code in ("upstream_unreachable", "upstream_cut")
    return Failure(fault.code, fault.words, FAULTS[fault.code], in_time, again=again)


def of_status(
    status: int,
    code: str | None,
    message: str | None,
    retry_after: str | None,
    wait: float | None = None,
) -> Failure:
    """An answer that is an error. ``code`` and ``message`` are the provider's own; ``wait`` is
    what it asks to wait, in seconds."""
    words = message or f"the upstream answered {status}"
    if code is not None and not _CODE.fullmatch(code):
        code = None  # no word for a log, a receipt or a metric: it may be anything, even a key
    if status in (400, 403, 413, 422) and code in _POLICY:
        return Failure("content_policy_violation", words, 400, False, status)
    match status:
        case 429:
            again = code not in _USED_UP
            return Failure(
                "upstream_rate_limited",
                words,
                429,
                True,
                status,
                retry_after,
                again=again,
                wait=wait,
            )
        case 401 | 402 | 403:
            # The provider's words may quote the key: they stay out of the client's answer.
            said = f"the upstream refused the gateway's credentials ({status})"
            return Failure("upstream_key_rejected", said, 502, True, status, wait=wait)
        case 404:
            return Failure("upstream_model_missing", words, 502, True, status)
        case 400 | 413 | 422:
            if code in ("context_length_exceeded", "exceed_context_size_error"):
                return Failure("context_length_exceeded", words, 400, True, status)
            return Failure(code or "upstream_refused", words, status, False, status)
        case _:
            again = status >= 500 or status in (408, 409, 425)
            return Failure(
                "upstream_error", words, 502, True, status, retry_after, again=again, wait=wait
            )


LEFT = Failure("client_gone", "the client left", 499, False)
HEDGE_LOST = "hedge_lost"
"""Code of the attempt that was cancelled because the other one answered first."""


class AttemptFailed(Exception):
    """One model gave no answer."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.words)
        self.failure = failure
