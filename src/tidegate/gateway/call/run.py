"""Ask the models of a chain in turn until one answers, within the request's one deadline; each
again where that may help (``retries``), with one of its keys (``keys``).

The commit point of a stream is its first real content: until then a failure falls back to the
next model and the client sees nothing of it; after it, a failure can only be told in-band.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

import msgspec

from tidegate.base.errors import RequestError
from tidegate.gateway.call.ask import Ask, T
from tidegate.gateway.call.failed import LEFT, AttemptFailed
from tidegate.gateway.call.hedge import hedged
from tidegate.gateway.call.keys import Lease
from tidegate.gateway.call.ports import Encoded
from tidegate.gateway.call.providers.openai import OpenAIEvents
from tidegate.gateway.call.retries import Situation, next_move, told_wait
from tidegate.gateway.call.rules import Failure, of_fault, of_status, rather
from tidegate.gateway.call.stream import HELD_BYTES, Stream, ms_since
from tidegate.gateway.call.target import Target
from tidegate.gateway.values import Answer, Call
from tidegate.gateway.wire.sse import EventSplitter
from tidegate.gateway.wire.upstream import Connection, Reply, UpstreamFault
from tidegate.ledger.receipts import Attempt

_JOINLESS = frozenset(("n", "logprobs", "top_logprobs"))
"""Parameters whose answers a stream cannot be put together into."""
_STALE_MS = 1000.0
"""A kept connection that had been closed breaks within this time of being used."""
_HELD_ANSWER = 8 << 20
"""Most bytes of a streamed answer that is held until it is complete."""


async def ask_whole(call: Call, targets: Sequence[Target]) -> Answer:
    """A whole answer from the first model that gives one: of a client that streams, all events of
    it. Raises RequestError, the first one."""
    ask: Ask[Answer]
    if call.stream:
        ask = _held(hedged(_stream, call.plan.hedge, targets))
    else:
        ask = hedged(_whole, call.plan.hedge, targets)
    if call.plan.guard is not None and len(targets) > 1:
        ask = _guarded(ask)
    return await _first_of(call, targets, ask)


async def ask_stream(call: Call, targets: Sequence[Target]) -> Stream:
    """A stream past its commit point. Raises RequestError: the first failure."""
    return await _first_of(call, targets, hedged(_stream, call.plan.hedge, targets))


async def _first_of(call: Call, targets: Sequence[Target], ask: Ask[T]) -> T:
    """What the first target that answers gives; every failed try is put on the receipt.

    A target whose provider has no counterpart of the request is passed over: nothing was sent, and
    that is told only when no model could be asked."""
    first: RequestError | None = None
    unfit: RequestError | None = None
    loop = asyncio.get_running_loop()
    call.plan.retries.earn(loop.time())
    for position, target in enumerate(targets, 1):
        call.fallbacks = len(targets) - position
        call.waited, tries = 0.0, 0
        while True:
            started = time.perf_counter_ns()
            tries += 1
            try:
                return await ask(call, target, started)
            except AttemptFailed as failed:
                failure = failed.failure
            except RequestError as error:
                unfit = unfit or error
                break
            except asyncio.CancelledError:
                answering = call.model if call.usage is not None else None  # of a hedge either
                _note(call, target, started, msgspec.structs.replace(LEFT, model=answering))
                raise
            told = _telling(failure, targets).error(failure.model or target.model.name)
            first = rather(first, told)
            _note(call, target, started, failure)
            if failure.policy:
                raise told
            if not failure.fall_back or loop.time() >= call.deadline:
                raise first
            move = next_move(failure, _situation(call, target, tries))
            if move.wait is None:
                break
            if move.paid:
                call.plan.retries.take()
            call.waited = move.wait * 1000
            await asyncio.sleep(move.wait)
    nobody = first or unfit
    assert nobody is not None
    raise nobody


def _situation(call: Call, target: Target, tries: int) -> Situation:
    now, plan = asyncio.get_running_loop().time(), call.plan
    return Situation(
        tries=tries,
        most=plan.route.retries.most,
        backoff=plan.route.retries.backoff,
        left=call.deadline - now,
        fallbacks=call.fallbacks,
        another_key=tries < len(target.keys) + plan.route.retries.most and target.keys.another(now),
        affordable=plan.retries.affordable,
        draw=random.random(),
    )


def _telling(failure: Failure, targets: Sequence[Target]) -> Failure:
    """``failure`` in words for the client. A hedge may have failed for another than was asked."""
    words = failure.words
    for target in targets:
        words = target.tell(words)
    return msgspec.structs.replace(failure, words=words)


def _note(call: Call, target: Target, started: int, failure: Failure) -> None:
    """Put the failed attempt on the receipt."""
    call.attempts.append(
        Attempt(
            model=failure.model or target.model.name,
            ms=ms_since(started),
            status=failure.upstream_status,
            code=failure.code,
            usage=failure.usage,
            key=failure.key,
            waited=call.waited,
        )
    )


async def _whole(call: Call, target: Target, started: int) -> Answer:
    if target.pooled and call.kind == "chat" and not _JOINLESS.intersection(call.upstream):
        return await _joined(call, target, started)
    lease = target.keys.take(random.random())
    try:
        answer = await _ask_whole(call, target, started, lease)
    except BaseException as error:
        _end(lease, error)
        raise
    lease.end()
    return answer


async def _ask_whole(call: Call, target: Target, started: int, lease: Lease) -> Answer:
    model = target.model
    data = target.request(_encode(call, target, False), lease.credential)
    while True:
        connection = await _connect(call, target)
        try:
            connection.send(
                data,
                deadline=_share(call),
                quiet=None,
                shared=call.fallbacks > 0,
                most=call.plan.route.caps.answer_bytes,
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
        if call.kind == "chat":
            parsed = target.provider.parse_chat(reply.body, model.upstream)
        else:
            parsed = target.provider.parse_embeddings(reply.body)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        words = f"the answer is not what it should be: {error}"
        raise AttemptFailed(of_fault(UpstreamFault("upstream_protocol", words))) from None
    call.attempts.append(
        Attempt(
            model=model.name,
            ms=ms_since(started),
            status=200,
            key=lease.fingerprint,
            waited=call.waited,
        )
    )
    return Answer(
        body=parsed.body,
        stream=False,
        model=model.name,
        finish=parsed.finish,
        complete=parsed.complete,
        usage=parsed.usage,
        content=parsed.content,
        tool_calls=parsed.tool_calls,
    )


def _end(lease: Lease, error: BaseException) -> None:
    """Give the key of a try that failed back, and say what the failure tells of it."""
    if isinstance(error, AttemptFailed):
        error.failure = msgspec.structs.replace(error.failure, key=lease.fingerprint)
        lease.end(error.failure.code, error.failure)
    else:
        lease.end(LEFT.code)


def _share(call: Call) -> float:
    """The loop time until which one model may take for a whole answer. Nothing goes out before it
    is there, so it gets half of what is left while there are others to ask, and all when it is
    the last."""
    if call.fallbacks == 0:
        return call.deadline
    now = asyncio.get_running_loop().time()
    return now + (call.deadline - now) / 2


async def _joined(call: Call, target: Target, started: int) -> Answer:
    """A whole answer put together from a stream."""
    stream = await _stream(call, target, started)
    await _to_the_end(call, stream, call.plan.route.caps.answer_bytes)
    return msgspec.structs.replace(stream.answer(stream.reader.assembled()), stream=False)


def _guarded(ask: Ask[Answer]) -> Ask[Answer]:
    """An answer that does not meet the route's schema is a failed try while there is another model
    to ask; it is billed all the same. That of the last model is for the path to judge."""

    async def checked(call: Call, target: Target, started: int) -> Answer:
        answer = await ask(call, target, started)
        if not call.fallbacks:
            return answer
        fault = call.plan.guard.fault(answer)
        if fault is None:
            call.guarded = True
            return answer
        answered = call.attempts.pop()  # is put on the receipt again, as what failed
        failure = Failure("output_invalid", f"its answer {fault}", 502, True, 200)
        raise AttemptFailed(
            msgspec.structs.replace(
                failure, usage=answer.usage, model=answered.model, key=answered.key
            )
        )

    return checked


def _held(begin: Ask[Stream]) -> Ask[Answer]:
    """A stream that is passed on only when it is complete: one that breaks off was never seen."""

    async def ask(call: Call, target: Target, started: int) -> Answer:
        stream = await begin(call, target, started)
        return stream.answer(await _to_the_end(call, stream, _HELD_ANSWER))

    return ask


async def _to_the_end(call: Call, stream: Stream, most: int) -> bytes:
    """All events. A stream that breaks off is a failed attempt, billed for what it gave."""
    try:
        events = await stream.rest(most)
    except UpstreamFault as fault:
        stream.drop(fault.code)
        failure = of_fault(fault)
        raise AttemptFailed(
            msgspec.structs.replace(
                failure, usage=stream.billed, model=stream.target.model.name, key=stream.key
            )
        ) from None
    except BaseException:
        stream.drop()
        call.model, call.usage = stream.target.model.name, stream.billed
        raise
    stream.close()
    return events


def join_chunks(body: bytes, model: str) -> bytes:
    """The events of a kept stream as one JSON answer, for the ledger. They are in the OpenAI form,
    whatever provider they came from."""
    reader = OpenAIEvents(model, True)
    for event in EventSplitter().feed(body):
        reader.feed(event)
    return reader.assembled()


def _encode(call: Call, target: Target, stream: bool) -> Encoded:
    """The provider's form of the request; messages that it cannot read are the client's mistake."""
    try:
        if call.kind == "chat":
            return target.provider.encode_chat(target.model.upstream, call.upstream, stream)
        return target.provider.encode_embeddings(target.model.upstream, call.upstream)
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise RequestError(
            400,
            "request_invalid",
            f"the request has no counterpart at the provider: {type(error).__name__} {error}",
            cure="send the shapes that the OpenAI API reference documents",
        ) from None


async def _stream(call: Call, target: Target, started: int) -> Stream:
    lease = target.keys.take(random.random())
    try:
        stream = await _begin_stream(call, target, started, lease)
    except BaseException as error:
        _end(lease, error)
        raise
    lease.answered()
    return stream


async def _begin_stream(call: Call, target: Target, started: int, lease: Lease) -> Stream:
    data = target.request(_encode(call, target, True), lease.credential)
    limits = call.plan.route.timeouts
    whole = not call.stream or call.plan.route.hold == "answer"
    while True:
        connection = await _connect(call, target)
        stream = None
        try:
            connection.send(
                data,
                deadline=_share(call) if whole else call.deadline,
                quiet=limits.first_token,
                shared=whole and call.fallbacks > 0,
            )
            reply = await connection.head()
            if reply.status != 200 or not reply.is_event_stream:
                body = bytearray()
                while len(body) < HELD_BYTES and (part := await connection.read()):
                    body += part
                whole = Reply(reply.status, reply.headers, bytes(body))
                raise AttemptFailed(_refusal(target, whole))
            reader = target.provider.events(target.model.upstream, call.wants_usage)
            stream = Stream(call, target, connection, reader, started, lease)
            await stream.commit(limits.idle)
            return stream
        except UpstreamFault as fault:
            connection.finish()
            if not _stale(connection, fault, started):
                raise AttemptFailed(of_fault(fault)) from None
        except BaseException:
            connection.finish()
            raise


async def _connect(call: Call, target: Target) -> Connection:
    connection = target.pool.take()
    if connection is not None:
        return connection
    remaining = call.deadline - asyncio.get_running_loop().time()
    try:
        return await target.pool.connect(min(call.plan.route.timeouts.connect, max(remaining, 0)))
    except UpstreamFault as fault:
        raise AttemptFailed(of_fault(fault)) from None


def _stale(connection: Connection, fault: UpstreamFault, started: int) -> bool:
    """A kept connection that the upstream had closed meanwhile: nothing was answered, so the
    request is sent again on another one. A fresh connection never counts as stale, so this ends.
    One that breaks later broke at work, which may be billed: that is a failed try."""
    kept = fault.code == "upstream_cut" and connection.was_reused and connection.untouched
    return kept and ms_since(started) < _STALE_MS


def _refusal(target: Target, reply: Reply) -> Failure:
    if reply.status == 200:
        kind = reply.headers.get(b"content-type", b"nothing").decode("latin-1")[:60]
        return of_fault(UpstreamFault("upstream_protocol", f"a stream was asked for, {kind} came"))
    code, message = target.provider.reason(reply.body)
    wait = told_wait(reply.headers, time.time())
    return of_status(reply.status, code, message, reply.retry_after, wait)
