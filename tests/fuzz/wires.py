"""A transport without a socket: what is written is kept, what is fed arrives at once."""

from __future__ import annotations

import asyncio
from typing import Any


class Wire(asyncio.Transport):
    """One connection of ``protocol``; ``written`` is what it has sent."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self.written = b""
        self.closed = False
        protocol.connection_made(self)

    async def feed(self, pieces: list[bytes]) -> None:
        """Deliver ``pieces``, with a few turns of the loop between them."""
        for piece in pieces:
            if self.closed:
                return
            if piece:
                self._protocol.data_received(piece)
            await turns()

    def lose(self) -> None:
        """The other end closes."""
        if not self.closed:
            self.closed = True
            self._protocol.connection_lost(None)

    def write(self, data: Any) -> None:
        if not self.closed:
            self.written += data

    def write_eof(self) -> None: ...

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    def close(self) -> None:
        self.abort()

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_write_buffer_limits(self, high: Any = None, low: Any = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
