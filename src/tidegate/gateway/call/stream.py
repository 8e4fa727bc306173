"""One model's stream, read event by event: held back until its first content, then passed on."""

from __future__ import annotations

import asyncio
import time

from tidegate.base.money import Usage, estimated_usage
from tidegate.gateway.call.keys import Lease
from tidegate.gateway.call.ports import EventReader, UnreadableEvent
from tidegate.gateway.call.rules import RATE_WINDOW, lost_nothing, too_slow
from tidegate.gateway.call.target import Target
from tidegate.gateway.values import Answer, Call
from tidegate.gateway.wire.sse import EventSplitter
from tidegate.gateway.wire.upstream import Connection, UpstreamFault
from tidegate.ledger.receipts import Attempt

HELD_EVENTS = 64
HELD_BYTES = 256 * 1024
MOST_SKIPPED = 3
"""Events of one stream that may be passed over because nobody can read them."""
_AFTER_FINISH = 1.0
"""Seconds of silence to wait for usage and [DONE] once the model has finished."""
_ENDING = 5.0
"""Seconds that the ending may take altogether, pings or not."""


def ms_since(started: int) -> float:
    """Milliseconds since ``started`` (perf_counter_ns)."""
    return (time.perf_counter_ns() - started) // 1000 / 1000


class Stream:
    """A stream of one model. ``commit`` waits for content; then ``next`` gives the client bytes.

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
        lease: Lease,
    ) -> None:
        self.target = target
        self._lease = lease
        self.reader = reader
        self.skipped = 0
        """Events that were passed over."""
        self._call = call
        self._connection = connection
        self._splitter = EventSplitter()
        self._started = started
        self._held: list[bytes] = []
        self._fault: UpstreamFault | None = None
        """What broke the stream after events that are still to be passed on."""
        self._end_by: float | None = None
        self._closed = False
        self._bytes = 0
        self._most = call.plan.route.caps.answer_bytes
        self._rate = call.plan.route.timeouts.min_rate
        self._waited = 0.0
        self._chars = 0

    async def commit(self, idle: float) -> None:
        """Hold events back until the first real content. Raises UpstreamFault before it.

        What the model thinks is no content, as nobody has acted on it; but it shows that the model
        is at work, so the clock of the first token stops there."""
        reader, held, alive = self.reader, 0, False
        while not reader.content:
            data = await self._read()
            out = self._feed(data)
            if out:
                self._held.append(out)
                held += len(out)
            if len(self._held) > HELD_EVENTS or held > HELD_BYTES:
                break
            if reader.alive and not alive:
                alive = True
                self._connection.first_token_seen(idle)
            if self._has_content():
                break
            if self._fault is not None:
                raise self._fault
            if reader.done or not data:
                raise UpstreamFault("upstream_cut", "the stream ended before any content")
        if not alive:
            self._connection.first_token_seen(idle)

    def _has_content(self) -> bool:
        return self.reader.content

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
        if self.reader.finish is None:
            raise UpstreamFault("upstream_cut", "the stream ended without a finish reason")
        if self.skipped and not lost_nothing(self.reader.pieces, self.reader.usage):
            words = f"{self.skipped} of its events could not be read and may have held text"
            raise UpstreamFault("upstream_protocol", words)
        out = b"".join(self._held)
        self._held.clear()
        return out

    async def rest(self, most: int) -> bytes:
        """Everything until the proper end. Raises UpstreamFault, also above ``most`` bytes."""
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
        return self.reader.done or self._fault is not None

    @property
    def _in_doubt(self) -> bool:
        """An event was passed over, and now the model says that it has finished: nobody is told
        before it is known that nothing was lost."""
        return self.skipped > 0 and self.reader.finish is not None

    async def _read(self) -> bytes:
        if self.reader.finish is not None:
            return await self._read_ending()
        if self._rate is not None and self.reader.alive:
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
        words = too_slow(self.reader.chars - self._chars, self._waited, rate)
        if words is not None:
            raise UpstreamFault("upstream_rate_timeout", words)
        if self._waited >= RATE_WINDOW:
            self._waited, self._chars = 0.0, self.reader.chars
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
        if self.reader.finish is None or not last:
            return self._take(last) if last else b""
        try:
            return self.reader.feed(last)
        except UnreadableEvent:
            return b""

    def _take(self, event: bytes) -> bytes:
        try:
            return self.reader.feed(event)
        except UnreadableEvent as error:
            self.skipped += 1
            if self.skipped > MOST_SKIPPED:
                raise UpstreamFault("upstream_protocol", str(error)) from None
            return b""

    def answer(self, body: bytes) -> Answer:
        """What was streamed, as an answer; ``body`` are the bytes that the client got."""
        reader = self.reader
        return Answer(
            body=body,
            stream=True,
            model=self.target.model.name,
            finish=reader.finish,
            complete=reader.finish == "stop" and not self.skipped,
            usage=self.billed if reader.chars else reader.usage,
            content=reader.text(),
            tool_calls=reader.tool_calls,
        )

    @property
    def billed(self) -> Usage:
        """What the provider bills of what has come; estimated where it did not say."""
        reader = self.reader
        if reader.usage is not None:
            return reader.usage
        return estimated_usage(
            self._call.upstream.get("messages", b""), reader.text(), reader.chars
        )

    def release(self) -> None:
        """The content is complete: give the connection back."""
        self._closed = True
        self._connection.finish(drain=True)
        self._lease.end()

    @property
    def key(self) -> str | None:
        """Fingerprint of the key that it came with."""
        return self._lease.fingerprint

    def drop(self, code: str = "client_gone") -> None:
        """Close the connection, so that the upstream stops; ``code`` says why. Safe to call
        twice."""
        if not self._closed:
            self._closed = True
            self._connection.finish()
            self._lease.end(code)

    def close(self, code: str | None = None) -> None:
        """Give the connection back and put the attempt on the receipt. Safe to call twice."""
        if self._closed:
            return
        if code is None:
            self.release()
        else:
            self.drop(code)
        self._call.attempts.append(
            Attempt(
                key=self._lease.fingerprint,
                waited=self._call.waited,
                model=self.target.model.name,
                ms=ms_since(self._started),
                status=200,
                code=code,
                skipped=self.skipped,
            )
        )
