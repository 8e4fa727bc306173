"""Ask the models of a chain in turn until one answers, within the request's one deadline; each
again where that may help (``retries``), with one of its keys (``targets.keys``).

The commit point of a stream is its first real content: until then a failure falls back to the
next model and the client sees nothing of it; after it, a failure can only be told in-band.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from tidegate.base import RequestError, Usage, estimated_usage
from tidegate.gateway.call.hedge import hedged
from tidegate.gateway.call.retries import Situation, next_move, requested_wait
from tidegate.gateway.call.stream import HELD_BYTES, Stream
from tidegate.gateway.call.turns import Try, Turn
from tidegate.gateway.journal import Journal, OpenAttempt, ms_since
from tidegate.gateway.neutral import AnswerFacts, Untranslatable
from tidegate.gateway.plan import OUTPUT_INVALID, AskTerms, broken
from tidegate.gateway.ports import Ask, EncodedRequest
from tidegate.gateway.targets import (
    LEFT,
    AttemptFailed,
    Failure,
    Lease,
    Target,
    first_to_tell,
    of_fault,
    of_status,
)
from tidegate.gateway.values import Answer
from tidegate.gateway.wire.upstream import UpstreamConnection, UpstreamFault, UpstreamReply

T = TypeVar("T")

_JOINLESS = frozenset(("n", "logprobs", "top_logprobs"))
"""Parameters whose answers a stream cannot be put together into."""
_STALE_MS = 1000.0
"""A kept connection that had been closed breaks within this time of being used."""
_HELD_ANSWER = 8 << 20
"""Most bytes of a streamed answer that is held until it is complete."""


class Answered(msgspec.Struct, frozen=True, eq=False):
    """A whole answer. Its attempt is still open: who gives the answer to the client ends it."""

    answer: Answer
    attempt: OpenAttempt
    checked: bool = False
    """Whether it was found to hold to the route's checks already."""


async def ask_whole(
    journal: Journal, ask: Ask, targets: Sequence[Target], terms: AskTerms, deadline: float
) -> Answered:
    """A whole answer from the first model that gives one by ``deadline`` (loop time): where ``ask``
    is for a stream, all events of it. Raises RequestError, the first one."""
    asking = _Asking(journal, ask, terms, deadline)
    attempt: Try[Answered]
    if ask.stream:
        attempt = asking.held(hedged(journal, asking.stream, terms.hedge, targets))
    else:
        attempt = hedged(journal, asking.whole, terms.hedge, targets)
    if terms.checks and len(targets) > 1:
        attempt = _checked(attempt, terms)
    return await _first_of(journal, targets, terms, deadline, attempt)


async def ask_stream(
    journal: Journal, ask: Ask, targets: Sequence[Target], terms: AskTerms, deadline: float
) -> Stream:
    """A stream past its commit point. Raises RequestError: the first failure."""
    asking = _Asking(journal, ask, terms, deadline, passed_on=True)
    return await _first_of(
        journal, targets, terms, deadline, hedged(journal, asking.stream, terms.hedge, targets)
    )


async def _first_of(
    journal: Journal,
    targets: Sequence[Target],
    terms: AskTerms,
    deadline: float,
    attempt: Try[T],
) -> T:
    """The answer or stream of the first target that gives one.

    A target whose provider has no counterpart of the request is passed over: nothing was sent, and
    that is told only when no model could be asked."""
    first: RequestError | None = None
    unfit: RequestError | None = None
    loop = asyncio.get_running_loop()
    terms.retry_budget.earn(loop.time())
    for position, target in enumerate(targets, 1):
        fallbacks, waited, tries = len(targets) - position, 0.0, 0
        while True:
            tries += 1
            turn = Turn(target, journal.begin(target.model.name, waited), fallbacks)
            try:
                return await attempt(turn)
            except AttemptFailed as failed:
                failure = failed.failure
            except RequestError as error:
                turn.attempt.discard()
                unfit = unfit or error
                break
            told = _telling(failure, targets).error(failure.model or target.model.name)
            first = first_to_tell(first, told)
            if failure.policy:
                raise told
            if not failure.fall_back or loop.time() >= deadline:
                raise first
            move = next_move(failure, _situation(turn, terms, deadline, tries))
            journal.note("call", f"{failure.model or target.model.name}: {move.reason}")
            if move.wait is None:
                break
            if move.paid:
                terms.retry_budget.take()
            waited = move.wait * 1000
            await asyncio.sleep(move.wait)
    nobody = first or unfit
    assert nobody is not None
    raise nobody


def _situation(turn: Turn, terms: AskTerms, deadline: float, tries: int) -> Situation:
    now, most, keys = asyncio.get_running_loop().time(), terms.retries.most, turn.target.keys
    return Situation(
        tries=tries,
        most=most,
        backoff=terms.retries.backoff,
        left=deadline - now,
        fallbacks=turn.fallbacks,
        another_key=tries < len(keys) + most and keys.another(now),
        affordable=terms.retry_budget.affordable,
        draw=random.random(),
    )


def _telling(failure: Failure, targets: Sequence[Target]) -> Failure:
    """The failure as the client reads it, with the model that failed, which may be the hedge and
    not the one asked first."""
    words = failure.words
    for target in targets:
        words = target.tell(words)
    return msgspec.structs.replace(failure, words=words)


class _Asking:
    """One request to whichever model has its turn. ``passed_on``: the events of its stream go to
    the client as they come."""

    def __init__(
        self,
        journal: Journal,
        ask: Ask,
        terms: AskTerms,
        deadline: float,
        *,
        passed_on: bool = False,
    ) -> None:
        self._journal = journal
        self._ask = ask
        self._terms = terms
        self._deadline = deadline
        self._passed_on = passed_on

    # -- whole answers --------------------------------------------------------------------------

    async def whole(self, turn: Turn) -> Answered:
        ask, target = self._ask, turn.target
        if target.pooled and ask.kind == "chat" and not _JOINLESS.intersection(ask.fields):
            return await self._joined(turn)
        encoded = self._encode(target, False)
        lease = _lease(turn)
        try:
            answer = await self._whole(turn, target.request(encoded, lease.credential))
        except BaseException as error:
            _give_back(lease, turn, error)
            raise
        lease.end()
        return Answered(answer, turn.attempt)

    async def _whole(self, turn: Turn, data: bytes) -> Answer:
        target, started = turn.target, time.perf_counter_ns()
        while True:
            connection = await self._connect(target)
            try:
                connection.send(
                    data,
                    deadline=self._share(turn),
                    quiet=None,
                    shared=turn.fallbacks > 0,
                    most=self._terms.answer_bytes,
                )
                reply = await connection.whole()
                break
            except UpstreamFault as fault:
                if not _stale(connection, fault, started):
                    raise AttemptFailed(of_fault(fault)) from None
            finally:
                connection.finish()
        if reply.status != 200:
            raise AttemptFailed(_refusal(target, reply))
        try:
            return self._read(target, reply.body)
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            words = f"the answer is not what it should be: {error}"
            raise AttemptFailed(of_fault(UpstreamFault("upstream_protocol", words))) from None

    def _read(self, target: Target, body: bytes) -> Answer:
        """The answer in the client's dialect: its own bytes where the provider speaks the same wire
        format."""
        provider, dialect = target.provider, self._ask.dialect
        if provider.wire == dialect.wire:
            facts = provider.facts(self._ask.kind, body)
        else:
            said = provider.read(body)
            facts = AnswerFacts.of(said)
            body = dialect.write(said, target.model.upstream)
        return Answer(
            body=body,
            stream=False,
            model=target.model.name,
            finish=facts.finish,
            complete=facts.complete,
            usage=facts.usage or self._estimate(facts.text),
            content=facts.text,
            tool_calls=facts.tool_calls,
        )

    def _estimate(self, text: str | None) -> Usage | None:
        """The tokens of an answer whose provider sent no numbers, marked as estimated: the receipt
        is written before the answer ends, so this may cost nothing. None where it has no text."""
        return estimated_usage(self._ask.prompt, text) if text else None

    def _share(self, turn: Turn) -> float:
        """The loop time until which one model may take for a whole answer. Nothing goes out before
        it is there, so it gets half of what is left while there are others to ask, and all when it
        is the last."""
        if turn.fallbacks == 0:
            return self._deadline
        now = asyncio.get_running_loop().time()
        return now + (self._deadline - now) / 2

    async def _joined(self, turn: Turn) -> Answered:
        """A whole answer put together from a stream."""
        stream = await self.stream(turn)
        await _to_the_end(stream, self._terms.answer_bytes)
        whole = stream.whole()
        return Answered(whole, turn.attempt)

    # -- streams --------------------------------------------------------------------------------

    def held(self, begin: Try[Stream]) -> Try[Answered]:
        """A stream that is passed on only when it is complete: a broken one was never seen."""

        async def ask(turn: Turn) -> Answered:
            stream = await begin(turn)
            return Answered(stream.answer(await _to_the_end(stream, _HELD_ANSWER)), stream.attempt)

        return ask

    async def stream(self, turn: Turn) -> Stream:
        encoded = self._encode(turn.target, True)
        lease = _lease(turn)
        try:
            stream = await self._begin(turn, encoded, lease)
        except BaseException as error:
            _give_back(lease, turn, error)
            raise
        lease.answered()
        turn.attempt.billed = lambda: stream.billed
        return stream

    async def _begin(self, turn: Turn, encoded: EncodedRequest, lease: Lease) -> Stream:
        target, limits = turn.target, self._terms.timeouts
        data, started = target.request(encoded, lease.credential), time.perf_counter_ns()
        while True:
            connection = await self._connect(target)
            try:
                connection.send(
                    data,
                    deadline=self._deadline if self._passed_on else self._share(turn),
                    quiet=limits.first_token,
                    shared=not self._passed_on and turn.fallbacks > 0,
                )
                reply = await connection.head()
                if reply.status != 200 or not reply.is_event_stream:
                    body = bytearray()
                    while len(body) < HELD_BYTES and (part := await connection.read()):
                        body += part
                    whole = UpstreamReply(reply.status, reply.headers, bytes(body))
                    raise AttemptFailed(_refusal(target, whole))
                stream = Stream(self._ask, turn, connection, lease, self._terms)
                await stream.commit(limits.idle)
                return stream
            except UpstreamFault as fault:
                connection.finish()
                if not _stale(connection, fault, started):
                    raise AttemptFailed(of_fault(fault)) from None
            except BaseException:
                connection.finish()
                raise

    # -- both -----------------------------------------------------------------------------------

    def _encode(self, target: Target, stream: bool) -> EncodedRequest:
        """The provider's form of the request. What it cannot read is the client's mistake."""
        try:
            encoded = target.provider.encode(target.model.upstream, self._ask, stream)
        except Untranslatable as error:
            raise RequestError(
                400,
                "parameter_unsupported",
                f"the provider of this route cannot be asked this: {error}",
                cure="leave it out, or route the request to a model that speaks the same API",
                param=error.param,
            ) from None
        except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise RequestError(
                400,
                "request_invalid",
                f"the request has no counterpart at the provider: {type(error).__name__} {error}",
                cure="send the shapes that the API reference documents",
            ) from None
        if encoded.dropped:
            left_out = ", ".join(name[:40] for name in encoded.dropped[:10])
            self._journal.note("call", f"{target.model.name} was not told: {left_out}")
        return encoded

    async def _connect(self, target: Target) -> UpstreamConnection:
        connection = target.pool.take()
        if connection is not None:
            return connection
        remaining = self._deadline - asyncio.get_running_loop().time()
        try:
            return await target.pool.connect(min(self._terms.timeouts.connect, max(remaining, 0)))
        except UpstreamFault as fault:
            raise AttemptFailed(of_fault(fault)) from None


def _lease(turn: Turn) -> Lease:
    """A key for one attempt. Raises AttemptFailed, with the attempt ended, when there is none."""
    try:
        lease = turn.target.keys.take(random.random())
    except AttemptFailed as failed:
        turn.attempt.fail(failed.failure)
        raise
    turn.attempt.key = lease.fingerprint
    return lease


def _give_back(lease: Lease, turn: Turn, error: BaseException) -> None:
    """The attempt ended in ``error``: the key comes back, with what the failure says of it."""
    if isinstance(error, AttemptFailed):
        lease.end(error.failure.code, error.failure)
        turn.attempt.fail(error.failure)
    else:
        lease.end(LEFT.code)


async def _to_the_end(stream: Stream, most: int) -> bytes:
    """All events. A stream that breaks off is a failed attempt, billed for what it gave."""
    try:
        events = await stream.rest(most)
    except UpstreamFault as fault:
        stream.drop(fault.code)
        failure = msgspec.structs.replace(
            of_fault(fault), usage=stream.billed, model=stream.target.model.name
        )
        stream.attempt.fail(failure)
        raise AttemptFailed(failure) from None
    except BaseException:
        stream.drop()
        raise
    stream.release()
    return events


def _checked(attempt: Try[Answered], terms: AskTerms) -> Try[Answered]:
    """An answer that fails a check is a failed attempt while there is another model to ask; it is
    billed all the same. That of the last model is for the path to judge."""

    async def checked(turn: Turn) -> Answered:
        answered = await attempt(turn)
        if not turn.fallbacks:
            return answered
        fault = broken(terms.checks, answered.answer.facts)
        if fault is None:
            return msgspec.structs.replace(answered, checked=True)
        failure = Failure(OUTPUT_INVALID, f"its answer {fault}", 502, True, 200)
        failure = msgspec.structs.replace(
            failure, usage=answered.answer.usage, model=answered.answer.model
        )
        answered.attempt.fail(failure)
        raise AttemptFailed(failure)

    return checked


def _stale(connection: UpstreamConnection, fault: UpstreamFault, started: int) -> bool:
    """Whether a failure came from a reused connection that the upstream had already closed: then
    nothing was processed, and the request is sent again on another one. A fresh connection is never
    stale, so this ends. One that breaks later broke at work, which may be billed: that is a failed
    attempt."""
    kept = fault.code == "upstream_cut" and connection.was_reused and connection.untouched
    return kept and ms_since(started) < _STALE_MS


def _refusal(target: Target, reply: UpstreamReply) -> Failure:
    if reply.status == 200:
        kind = reply.headers.get(b"content-type", b"nothing").decode("latin-1")[:60]
        return of_fault(UpstreamFault("upstream_protocol", f"a stream was asked for, {kind} came"))
    code, message = target.provider.reason(reply.body)
    wait = requested_wait(reply.headers, time.time())
    return of_status(reply.status, code, message, reply.retry_after, wait)
