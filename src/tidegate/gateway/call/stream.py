"""One model's stream, read event by event: held back until its first content, then passed on."""

from __future__ import annotations

import time

from tidegate.base.money import Usage
from tidegate.gateway.call.ports import EventReader
from tidegate.gateway.call.target import Target
from tidegate.gateway.values import Answer, Call
from tidegate.gateway.wire.sse import EventSplitter
from tidegate.gateway.wire.upstream import MAX_ANSWER, Connection, UpstreamFault
from tidegate.ledger.receipts import Attempt

HELD_EVENTS = 64
HELD_BYTES = 256 * 1024
_AFTER_FINISH = 1.0
"""Seconds to wait for usage and [DONE] once the model has finished."""


def ms_since(started: int) -> float:
    """Milliseconds since ``started`` (perf_counter_ns)."""
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
            if len(self._held) > HELD_EVENTS or held_bytes > HELD_BYTES:
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
            Attempt(model=self.target.model.name, ms=ms_since(self._started), status=200, code=code)
        )
