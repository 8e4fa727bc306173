"""Ask the models of a chain in turn until one answers, within the request's one deadline.

The commit point of a stream is its first real content: until then a failure falls back to the
next model and the client sees nothing of it; after it, a failure can only be told in-band.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias, TypeVar

import msgspec

from tidegate.base.errors import RequestError
from tidegate.base.money import Usage
from tidegate.gateway.call.ports import Encoded, EventReader
from tidegate.gateway.call.providers.openai import OpenAIEvents
from tidegate.gateway.call.rules import Failure, of_fault, of_status
from tidegate.gateway.call.target import Target
from tidegate.gateway.values import Answer, Call
from tidegate.gateway.wire.sse import EventSplitter
from tidegate.gateway.wire.upstream import MAX_ANSWER, Connection, Reply, UpstreamFault
from tidegate.ledger.receipts import Attempt

_HELD_EVENTS = 64
_HELD_BYTES = 256 * 1024
_JOINLESS = frozenset(("n", "logprobs", "top_logprobs"))
"""Parameters whose answers a stream cannot be put together into."""
_AFTER_FINISH = 1.0
"""Seconds to wait for usage and [DONE] once the model has finished."""
_STALE_MS = 1000.0
"""A kept connection that had been closed breaks within this time of being used."""
_LEFT = Failure("client_gone", "the client left", 499, False)


T = TypeVar("T")
Ask: TypeAlias = Callable[[Call, Target, int], Awaitable[T]]
"""Ask one target, at perf_counter_ns; raises AttemptFailed."""


class AttemptFailed(Exception):
    """One model gave no answer."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.words)
        self.failure = failure


async def ask_whole(call: Call, targets: Sequence[Target]) -> Answer:
    """A whole answer from the first model that gives one. Raises RequestError, the first one."""
    return await _first_of(call, targets, _whole)


async def ask_stream(call: Call, targets: Sequence[Target]) -> Stream:
    """A stream past its commit point. Raises RequestError: the first failure."""
    return await _first_of(call, targets, _stream)


async def _first_of(call: Call, targets: Sequence[Target], ask: Ask[T]) -> T:
    """What the first target that answers gives; every failed try is put on the receipt.

    A target whose provider has no counterpart of the request is passed over: nothing was sent."""
    first: RequestError | None = None
    for position, target in enumerate(targets, 1):
        started = time.perf_counter_ns()
        call.fallbacks = len(targets) - position
        try:
            return await ask(call, target, started)
        except AttemptFailed as failed:
            failure = failed.failure
            said = msgspec.structs.replace(failure, words=target.tell(failure.words))
            first = first or said.error(target.model.name)
            if not _note(call, target, started, failure):
                break
        except RequestError as unfit:
            first = first or unfit
        except asyncio.CancelledError:
            _note(call, target, started, _LEFT)
            raise
    assert first is not None
    raise first


def _note(call: Call, target: Target, started: int, failure: Failure) -> bool:
    """Put the failed attempt on the receipt; whether the next model may try."""
    call.attempts.append(
        Attempt(
            model=target.model.name,
            ms=_ms(started),
            status=failure.upstream_status,
            code=failure.code,
        )
    )
    return failure.fall_back and asyncio.get_running_loop().time() < call.deadline


async def _whole(call: Call, target: Target, started: int) -> Answer:
    if target.pooled and call.kind == "chat" and not _JOINLESS.intersection(call.upstream):
        return await _joined(call, target, started)
    model = target.model
    data = target.request(_encode(call, target, False))
    while True:
        connection = await _connect(call, target)
        try:
            connection.send(data, deadline=_share(call), quiet=None, shared=call.fallbacks > 0)
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
    call.attempts.append(Attempt(model=model.name, ms=_ms(started), status=200))
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


def _share(call: Call) -> float:
    """The loop time until which one model may take for a whole answer. Nothing tells how far it
    is, so it gets half of what is left while there are others to ask, and all when it is the last.
    """
    if call.fallbacks == 0:
        return call.deadline
    now = asyncio.get_running_loop().time()
    return now + (call.deadline - now) / 2


async def _joined(call: Call, target: Target, started: int) -> Answer:
    """A whole answer put together from a stream."""
    stream = await _stream(call, target, started)
    try:
        while await stream.next():
            pass
    except UpstreamFault as fault:
        stream.drop()
        raise AttemptFailed(of_fault(fault)) from None
    except BaseException:
        stream.drop()
        raise
    stream.close()
    return msgspec.structs.replace(stream.answer(stream.reader.assembled()), stream=False)


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
    data = target.request(_encode(call, target, True))
    limits = call.plan.route.timeouts
    while True:
        connection = await _connect(call, target)
        stream = None
        try:
            connection.send(data, deadline=call.deadline, quiet=limits.first_token)
            reply = await connection.head()
            if reply.status != 200 or not reply.is_event_stream:
                body = bytearray()
                while len(body) < _HELD_BYTES and (part := await connection.read()):
                    body += part
                whole = Reply(reply.status, reply.headers, bytes(body))
                raise AttemptFailed(_refusal(target, whole))
            reader = target.provider.events(target.model.upstream, call.wants_usage)
            stream = Stream(call, target, connection, reader, started)
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
    return kept and _ms(started) < _STALE_MS


def _refusal(target: Target, reply: Reply) -> Failure:
    if reply.status == 200:
        kind = reply.headers.get(b"content-type", b"nothing").decode("latin-1")[:60]
        return of_fault(UpstreamFault("upstream_protocol", f"a stream was asked for, {kind} came"))
    code, message = target.provider.reason(reply.body)
    return of_status(reply.status, code, message, reply.retry_after)


def _ms(started: int) -> float:
    return (time.perf_counter_ns() - started) // 1000 / 1000


class Stream:
    """A stream of one model. ``commit`` waits for content; then iterate over bytes for the client.

    Ends by itself when the upstream ended properly, raises UpstreamFault otherwise. ``close``
    must be called in every case; it closes an unfinished upstream at once.
    """

    def __init__(
        self,
        call: Call,
        target: Target,
        connection: Connection,
        reader: EventReader,
        started: int,
    ) -> None:
        self.target = target
        self.reader = reader
        self._call = call
        self._connection = connection
        self._splitter = EventSplitter()
        self._started = started
        self._held: list[bytes] = []
        self._finish_seen = False
        self._closed = False
        self._bytes = 0

    async def commit(self, idle: float) -> None:
        """Hold events back until the first real content. Raises UpstreamFault before it."""
        held_bytes = 0
        while not self.reader.content:
            data = await self._connection.read()
            out = self._feed(data)
            if out:
                self._held.append(out)
                held_bytes += len(out)
            if len(self._held) > _HELD_EVENTS or held_bytes > _HELD_BYTES:
                break
            if (self.reader.done or not data) and not self._has_content():
                raise UpstreamFault("upstream_cut", "the stream ended before any content")
        self._connection.first_token_seen(idle)

    def _has_content(self) -> bool:
        return self.reader.content

    async def next(self) -> bytes:
        """Bytes for the client; b"" at the proper end. Raises UpstreamFault."""
        if self._held:
            out = b"".join(self._held)
            self._held.clear()
            return out
        while not self._ended:
            try:
                data = await self._read()
            except UpstreamFault:
                if self.reader.finish is not None:
                    return b""  # all content and the reason for its end are there
                raise
            out = self._feed(data)
            if out:
                return out
            if not data:
                break
        if self.reader.finish is None and not self.reader.done:
            raise UpstreamFault("upstream_cut", "the stream ended without a finish reason")
        return b""

    @property
    def _ended(self) -> bool:
        return self.reader.done

    async def _read(self) -> bytes:
        if self.reader.finish is not None and not self._finish_seen:
            self._finish_seen = True
            self._connection.first_token_seen(_AFTER_FINISH)
        return await self._connection.read()

    def _feed(self, data: bytes) -> bytes:
        self._bytes += len(data)
        if self._bytes > MAX_ANSWER:
            words = f"the stream is larger than {MAX_ANSWER >> 20} MiB"
            raise UpstreamFault("upstream_too_large", words)
        try:
            # At the end a last event may lack its blank line.
            events = self._splitter.feed(data if data or not self._splitter.rest else b"\n\n")
        except ValueError as error:
            raise UpstreamFault("upstream_too_large", str(error)) from None
        if len(events) == 1:
            return self.reader.feed(events[0])
        return b"".join([self.reader.feed(event) for event in events])

    def answer(self, body: bytes) -> Answer:
        """What was streamed, as an answer; ``body`` are the bytes that the client got."""
        reader = self.reader
        return Answer(
            body=body,
            stream=True,
            model=self.target.model.name,
            finish=reader.finish,
            complete=reader.finish == "stop",
            usage=reader.usage,
            content=reader.text(),
            tool_calls=reader.tool_calls,
        )

    @property
    def usage(self) -> Usage | None:
        return self.reader.usage

    def release(self) -> None:
        """The content is complete: give the connection back."""
        self._closed = True
        self._connection.finish(drain=True)

    def drop(self) -> None:
        """Close the connection, so that the upstream stops."""
        self._closed = True
        self._connection.finish()

    def close(self, code: str | None = None) -> None:
        """Give the connection back and put the attempt on the receipt. Safe to call twice."""
        if self._closed:
            return
        if code is None:
            self.release()
        else:
            self.drop()
        self._call.attempts.append(
            Attempt(model=self.target.model.name, ms=_ms(self._started), status=200, code=code)
        )
