"""One model's stream, read event by event: held back until its first content, then passed on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from tidegate.base import Usage, estimated_usage
from tidegate.gateway.call.rules import RATE_WINDOW, lost_nothing, too_slow
from tidegate.gateway.call.turns import Turn
from tidegate.gateway.neutral import Event, Transcript
from tidegate.gateway.plan import AskTerms
from tidegate.gateway.ports import Ask, ClientDialect, EventWriter, UnreadableEvent
from tidegate.gateway.targets import Lease
from tidegate.gateway.values import Answer
from tidegate.gateway.wire.sse import EventSplitter
from tidegate.gateway.wire.upstream import UpstreamConnection, UpstreamFault

HELD_EVENTS = 64
HELD_BYTES = 256 * 1024
MOST_SKIPPED = 3
"""Unreadable events of one stream that may be skipped."""
_AFTER_FINISH = 1.0
"""Seconds of silence to wait for usage and the end marker once the model has finished."""
_ENDING = 5.0
"""Seconds that the ending may take altogether, pings or not."""


class _Passing:
    """Bytes for a client whose dialect is the provider's own wire format: as they came."""

    def __init__(self, dialect: ClientDialect, shows_usage: bool) -> None:
        self._passes = dialect.passes
        self._shows_usage = shows_usage

    def render(self, raw: bytes, events: Sequence[Event]) -> bytes:
        return raw if self._passes(events, self._shows_usage) else b""


class _Translating:
    """Bytes for a client of another dialect: written anew from what the events say."""

    def __init__(self, writer: EventWriter) -> None:
        self._write = writer.write

    def render(self, raw: bytes, events: Sequence[Event]) -> bytes:
        return self._write(events)


class Stream:
    """A stream of one model. ``commit`` waits for content; then ``next`` gives the client bytes.

    Ends by itself when the upstream ended properly, raises UpstreamFault otherwise. ``release`` or
    ``drop`` must be called in every case; ``drop`` closes an unfinished upstream at once.
    """

    def __init__(
        self, ask: Ask, turn: Turn, connection: UpstreamConnection, lease: Lease, terms: AskTerms
    ) -> None:
        self.target = turn.target
        self.attempt = turn.attempt
        self.said = Transcript()
        self.skipped = 0
        """Events that were passed over."""
        self._ask = ask
        self._lease = lease
        self._connection = connection
        self._reader = turn.target.provider.events()
        self._render = self._renderer().render
        self._splitter = EventSplitter()
        self._held: list[bytes] = []
        self._fault: UpstreamFault | None = None
        """What broke the stream after events that are still to be passed on."""
        self._end_by: float | None = None
        self._closed = False
        self._bytes = 0
        self._most = terms.answer_bytes
        self._rate = terms.timeouts.min_rate
        self._waited = 0.0
        self._chars = 0

    def _renderer(self) -> _Passing | _Translating:
        dialect, target = self._ask.dialect, self.target
        if target.provider.wire == dialect.wire:
            return _Passing(dialect, self._ask.shows_usage)
        return _Translating(dialect.writer(target.model.upstream, self._ask.shows_usage))

    async def commit(self, idle: float) -> None:
        """Hold events back until the first real content. Raises UpstreamFault before it.

        What the model thinks is no content, as nobody has acted on it; but it shows that the model
        is at work, so the clock of the first token stops there."""
        said, held, alive = self.said, 0, False
        while not said.content:
            data = await self._read()
            out = self._feed(data)
            if out:
                self._held.append(out)
                held += len(out)
            if len(self._held) > HELD_EVENTS or held > HELD_BYTES:
                break
            if said.alive and not alive:
                alive = True
                self._connection.first_token_seen(idle)
            if self._begun():
                break
            if self._fault is not None:
                raise self._fault
            if said.done or not data:
                raise UpstreamFault("upstream_cut", "the stream ended before any content")
        if not alive:
            self._connection.first_token_seen(idle)

    def _begun(self) -> bool:
        return self.said.content

    async def next(self) -> bytes:
        """Bytes for the client; b"" at the proper end. Raises UpstreamFault."""
        if self._held and not self._in_doubt:
            out = b"".join(self._held)
            self._held.clear()
            return out
        while not self._ended:
            data = await self._read()
            out = self._feed(data)
            if out and self._in_doubt:
                self._held.append(out)
            elif out:
                return out
            if not data:
                break
        if self._fault is not None:
            raise self._fault
        if self.said.finish is None:
            raise UpstreamFault("upstream_cut", "the stream ended without a finish reason")
        if self.skipped and not lost_nothing(self.said.pieces, self.said.usage):
            words = f"{self.skipped} of its events could not be read and may have held text"
            raise UpstreamFault("upstream_protocol", words)
        out = b"".join(self._held)
        self._held.clear()
        return out

    async def rest(self, most: int) -> bytes:
        """The remaining bytes of the stream. Raises UpstreamFault, also above ``most`` bytes."""
        parts, size = [], 0
        while data := await self.next():
            parts.append(data)
            size += len(data)
            if size > most:
                words = f"a held answer is larger than {most >> 20} MiB"
                raise UpstreamFault("upstream_too_large", words)
        return b"".join(parts)

    @property
    def _ended(self) -> bool:
        return self.said.done or self._fault is not None

    @property
    def _in_doubt(self) -> bool:
        """Whether the finish must be withheld: an unreadable event was skipped, and nothing yet
        shows that it held no content."""
        return self.skipped > 0 and self.said.finish is not None

    async def _read(self) -> bytes:
        if self.said.finish is not None:
            return await self._read_ending()
        if self._rate is not None and self.said.alive:
            return await self._read_measured(self._rate)
        return await self._connection.read()

    async def _read_ending(self) -> bytes:
        """What comes after the finish: usage, [DONE]. All content is there, so nothing that goes
        wrong now is a fault."""
        now = asyncio.get_running_loop().time()
        if self._end_by is None:
            self._end_by = now + _ENDING
            self._connection.first_token_seen(_AFTER_FINISH)
        if now > self._end_by:
            return b""
        try:
            return await self._connection.read()
        except UpstreamFault:
            return b""

    async def _read_measured(self, rate: float) -> bytes:
        """Only the time spent waiting here counts: a client that reads slowly costs its model
        nothing, and no timer is needed, as silence has its own clock."""
        words = too_slow(self.said.chars - self._chars, self._waited, rate)
        if words is not None:
            raise UpstreamFault("upstream_rate_timeout", words)
        if self._waited >= RATE_WINDOW:
            self._waited, self._chars = 0.0, self.said.chars
        loop = asyncio.get_running_loop()
        before = loop.time()
        data = await self._connection.read()
        self._waited += loop.time() - before
        return data

    def _feed(self, data: bytes) -> bytes:
        """What the client gets of ``data``. Events before one that breaks the stream still go."""
        if not data:
            return self._feed_end()
        self._bytes += len(data)
        if self._bytes > self._most:
            words = f"the stream is larger than {self._most} bytes"
            raise UpstreamFault("upstream_too_large", words)
        try:
            events = self._splitter.feed(data)
        except ValueError as error:
            raise UpstreamFault("upstream_too_large", str(error)) from None
        if len(events) == 1:
            return self._take(events[0])
        out = []
        for event in events:
            try:
                out.append(self._take(event))
            except UpstreamFault as fault:
                if not any(out):
                    raise
                self._fault = fault
                break
        return b"".join(out)

    def _feed_end(self) -> bytes:
        """The last event may lack its blank line. After the finish one that is cut held no text."""
        last = self._splitter.end()
        if self.said.finish is None or not last:
            return self._take(last) if last else b""
        try:
            return self._read_event(last)
        except UnreadableEvent:
            return b""

    def _take(self, event: bytes) -> bytes:
        try:
            return self._read_event(event)
        except UnreadableEvent as error:
            self.skipped += 1
            if self.skipped > MOST_SKIPPED:
                raise UpstreamFault("upstream_protocol", str(error)) from None
            return b""

    def _read_event(self, raw: bytes) -> bytes:
        events = self._reader.feed(raw)
        self.said.add(events)
        return self._render(raw, events)

    def answer(self, body: bytes) -> Answer:
        """What was streamed, as an answer; ``body`` are the bytes that the client got."""
        said = self.said
        return Answer(
            body=body,
            stream=True,
            model=self.target.model.name,
            finish=said.finish,
            complete=said.finish == "stop" and not self.skipped,
            usage=self.billed if said.chars else said.usage,
            content=said.text(),
            tool_calls=said.tool_calls,
        )

    def whole(self) -> Answer:
        """The same for a client that did not ask for a stream."""
        return msgspec.structs.replace(self.answer(self.assembled()), stream=False)

    def assembled(self) -> bytes:
        """What has come so far as one JSON answer in the client's dialect."""
        return self._ask.dialect.write(self.said.completion(), self.target.model.upstream)

    @property
    def billed(self) -> Usage:
        """What the provider bills of what has come; estimated where it did not say."""
        said = self.said
        if said.usage is not None:
            return said.usage
        return estimated_usage(self._ask.prompt, said.text(), said.chars)

    def release(self) -> None:
        """The content is complete: give the connection and the key back. Safe to call twice."""
        if not self._closed:
            self._closed = True
            self._connection.finish(drain=True)
            self._lease.end()

    def drop(self, code: str = "client_gone") -> None:
        """Close the connection, so that the upstream stops; ``code`` says why. Safe to call
        twice."""
        if not self._closed:
            self._closed = True
            self._connection.finish()
            self._lease.end(code)
