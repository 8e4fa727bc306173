"""An asyncio Valkey client for the path of requests: one pipelined connection, short deadlines.

Every command either answers within the deadline or raises ``ValkeyDown``. While the connection
is gone, or has stopped answering, commands fail at once; a background task reconnects. So a
frozen or missing Valkey costs the first few requests one deadline each and the rest nothing.

Built here rather than taken from a client library because it is on every request: replies are
parsed by hiredis, commands of one loop turn leave in one write, and one timer watches all of them.
"""

from __future__ import annotations

import asyncio
import collections
import logging
from typing import Any
from urllib.parse import unquote, urlsplit

import hiredis
import msgspec

log = logging.getLogger("tidegate.stores.valkey")

_SEND_DELAY = 0.002
"""Seconds that a command whose reply nobody awaits may wait for another to leave with it."""


class ValkeyDown(Exception):
    """Valkey did not answer in time, or there is no connection; the words say which."""


class ValkeyStatistics(msgspec.Struct, frozen=True):
    """Counters of one client since its start."""

    up: bool
    pending: int
    commands: int
    timeouts: int
    reconnects: int


class ValkeyClient:
    """``await client.call(b"GET", key)`` gives bytes, int, None or a list, or raises ValkeyDown."""

    def __init__(self, url: str, *, deadline: float = 0.025) -> None:
        self._url = url
        self._deadline = deadline
        self._protocol: _Resp | None = None
        self._task: asyncio.Task[None] | None = None
        self._commands = self._timeouts = self._reconnects = 0

    async def start(self) -> None:
        """Connect if Valkey is there (waits one second at most); keep trying in the background."""
        ready = asyncio.Event()
        self._task = asyncio.create_task(self._keep_connected(ready), name="valkey-client")
        try:
            async with asyncio.timeout(1.0):
                await ready.wait()
        except TimeoutError:
            pass

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._protocol is not None:
            self._protocol.close("the client was stopped")

    @property
    def up(self) -> bool:
        return self._protocol is not None and self._protocol.open

    @property
    def connection(self) -> int:
        """Which connection this is, counted from 0."""
        return self._reconnects

    def statistics(self) -> ValkeyStatistics:
        pending = len(self._protocol.pending) if self._protocol else 0
        return ValkeyStatistics(self.up, pending, self._commands, self._timeouts, self._reconnects)

    def call(self, *command: bytes | str | int) -> asyncio.Future[Any]:
        """Send one command; the future carries its reply or ValkeyDown or hiredis.ReplyError."""
        self._commands += 1
        if self._protocol is None or not self._protocol.open:
            future = asyncio.get_running_loop().create_future()
            future.set_exception(ValkeyDown("no connection to Valkey"))
            return future
        return self._protocol.send(command)

    def send(self, *command: bytes | str | int) -> asyncio.Future[Any] | None:
        """Send one command whose reply nobody waits for; None, and nothing is sent, while Valkey
        is down.

        It may wait two milliseconds for a command that somebody waits for, to leave with it."""
        self._commands += 1
        if self._protocol is None or not self._protocol.open:
            return None
        reply = self._protocol.send(command, soon=False)
        reply.add_done_callback(_ignore)
        return reply

    async def _keep_connected(self, ready: asyncio.Event) -> None:
        delay, said = 0.05, False
        while True:
            try:
                protocol = await self._connect()
            except (OSError, ValkeyDown, TimeoutError, hiredis.ReplyError) as error:
                if not said:
                    log.warning("valkey is away (%s): caching is off until it is back", error)
                    said = True
                await asyncio.sleep(delay)
                delay = min(delay * 2, 1.0)
                continue
            if said or self._reconnects:
                log.warning("valkey is back")
            delay, said = 0.05, False
            self._protocol = protocol
            ready.set()
            reason = await protocol.lost
            self._protocol = None
            self._reconnects += 1
            self._timeouts += protocol.timeouts
            log.warning("valkey went away (%s): caching is off until it is back", reason)
            said = True

    async def _connect(self) -> _Resp:
        parts = urlsplit(self._url)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(2.0):
            if parts.scheme == "unix":
                _, protocol = await loop.create_unix_connection(
                    lambda: _Resp(self._deadline), unquote(parts.path)
                )
            else:
                tls = parts.scheme in ("rediss", "valkeys")
                _, protocol = await loop.create_connection(
                    lambda: _Resp(self._deadline),
                    parts.hostname or "127.0.0.1",
                    parts.port or 6379,
                    ssl=tls or None,
                )
            try:
                if parts.password:
                    user = (unquote(parts.username),) if parts.username else ()
                    await protocol.send((b"AUTH", *user, unquote(parts.password)))
                if parts.scheme != "unix" and parts.path.strip("/"):
                    await protocol.send((b"SELECT", parts.path.strip("/")))
                await protocol.send((b"PING",))
            except BaseException:  # cancelled or timed out, too: nobody else knows this socket
                protocol.close("the connection was not accepted")
                raise
        return protocol


class _Resp(asyncio.Protocol):
    """One connection to Valkey: replies come in the order of the commands and carry no id."""

    def __init__(self, deadline: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadline = deadline
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._out: list[bytes] = []
        self._leaving = False
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self.pending: collections.deque[tuple[float, asyncio.Future[Any]]] = collections.deque()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self.timeouts = 0
        self._late = 0
        """Commands in a row that got no reply in time."""
        self._extended = False
        """Whether a late timer has given unread replies their turn."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    @property
    def open(self) -> bool:
        return self._transport is not None

    def send(
        self, command: tuple[bytes | str | int, ...], *, soon: bool = True
    ) -> asyncio.Future[Any]:
        """Queue one command. ``soon``: it leaves at the end of this loop turn; else it may wait
        for one that does, two milliseconds at most: a write less for each."""
        future = self._loop.create_future()
        if self._transport is None:
            future.set_exception(ValkeyDown("the connection to Valkey is closed"))
            return future
        self.pending.append((self._loop.time() + self._deadline, future))
        if soon and not self._leaving:
            self._leaving = True
            self._loop.call_soon(self._flush)
        elif not self._out:
            self._loop.call_later(_SEND_DELAY, self._flush)
        self._out.append(hiredis.pack_command(command))
        if self._watch is None:
            self._watch = self._loop.call_later(self._deadline, self._expire)
        return future

    def _flush(self) -> None:
        self._leaving = False
        if self._transport is not None and self._out:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while True:
            try:
                reply = self._reader.gets()
            except (hiredis.ProtocolError, TypeError, ValueError, OverflowError) as error:
                # The latter for what no Python value can be, such as a map whose key is a list.
                self.close(f"not a Valkey answer: {error}")
                return
            if reply is _NOT_YET:
                return
            if not self.pending:
                self.close("an answer that nobody asked for")
                return
            # Commands that timed out are still in the queue: replies carry no id, so one that comes
            # late must be matched to its own command, or every later one gets the wrong reply.
            _, future = self.pending.popleft()
            self._late = 0
            if future.done():
                continue
            if isinstance(reply, hiredis.ReplyError):
                future.set_exception(reply)
            else:
                future.set_result(reply)

    def _expire(self) -> None:
        """Fail the commands past their deadline; eight in a row without a reply end the connection.

        When this timer itself is late, the loop was busy and replies may lie unread in the socket:
        they get one turn first, and only one, so that a frozen store on a busy loop still ends."""
        now = self._loop.time()
        watch, self._watch = self._watch, None
        busy = watch is not None and now - watch.when() > self._deadline / 2
        if busy and not self._extended:
            self._extended = True
            self._watch = self._loop.call_later(self._deadline / 2, self._expire)
            return
        self._extended = False
        for due, future in self.pending:
            if due > now:
                break
            if not future.done():
                self.timeouts += 1
                self._late += 1
                future.set_exception(ValkeyDown(f"no answer in {self._deadline * 1000:.0f} ms"))
        if self._late >= 8:
            self.close("it stopped answering")
        elif self.pending:
            self._watch = self._loop.call_later(self._deadline / 2, self._expire)

    def connection_lost(self, error: Exception | None) -> None:
        self.close(str(error) if error else "it closed the connection")

    def close(self, reason: str) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        while self.pending:
            _, future = self.pending.popleft()
            if not future.done():
                future.set_exception(ValkeyDown(reason))
                future.exception()  # whoever waits still sees it; nobody else is warned
        if not self.lost.done():
            self.lost.set_result(reason)


_NOT_YET = object()


def _ignore(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
