"""Ports to be chosen now and listened on later, never the same for two tests of this machine.

A port that the kernel hands out (bind to 0, read, close) may be handed to somebody else before it
is used. So each process that runs tests holds a block of ports for itself, by a lock on a file that
the kernel lets go when the process ends, however it ends; and the blocks lie below the ephemeral
range (32768 on Linux) and below that of ``tidegate.pools.loopback``, so that neither an outgoing
connection nor a pool takes one. A server that binds to 0 and keeps the socket needs none of this.
"""

from __future__ import annotations

import fcntl
import itertools
import socket
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import IO

_FIRST, _LAST, _SIZE = 10_000, 20_000, 100
_held: list[IO[bytes]] = []
"""The lock of this process's block, open for as long as the process lives."""


def free_port() -> int:
    """The next port of this process's block that nobody listens on."""
    for port in itertools.islice(_ports(), _SIZE):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port of this process's block is free")


@cache
def _ports() -> Iterator[int]:
    return itertools.cycle(_block())


def _block() -> range:
    folder = Path(tempfile.gettempdir()) / "tidegate-test-ports"
    folder.mkdir(exist_ok=True)
    for first in range(_FIRST, _LAST, _SIZE):
        lock = (folder / str(first)).open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        _held.append(lock)
        return range(first, first + _SIZE)
    raise OSError(f"every block of ports is held; see the processes that hold {folder}")
