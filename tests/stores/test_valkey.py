"""The embedded Valkey is a private cache: bounded, evicting, nothing on disk."""

from __future__ import annotations

import os
import signal
import socket
import stat
from pathlib import Path

import pytest

from tidegate.stores.open import running
from tidegate.stores.valkey import answers, valkey_socket, valkey_spec


def ask(path: Path, *words: str) -> bytes:
    """One command over the socket, with its raw answer (short ones only)."""
    parts = b"".join(b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        connection.connect(str(path))
        connection.sendall(b"*%d\r\n%s" % (len(words), parts))
        return connection.recv(4096)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("maxmemory", "268435456"),
        ("maxmemory-policy", "volatile-ttl"),
        ("save", ""),
        ("appendonly", "no"),
        ("port", "0"),
    ],
)
def test_it_is_a_bounded_cache_without_a_port(valkey_server: Path, name: str, value: str) -> None:
    assert f"\r\n{value}\r\n".encode() in ask(valkey_server, "CONFIG", "GET", name)


def test_the_socket_is_private(valkey_server: Path) -> None:
    assert stat.S_IMODE(valkey_server.stat().st_mode) == 0o700


def test_the_fixture_gives_an_empty_store(valkey_url: str) -> None:
    path = Path(valkey_url.removeprefix("unix://"))
    assert ask(path, "DBSIZE") == b":0\r\n"
    assert ask(path, "SET", "a", "b") == b"+OK\r\n"


def test_the_fixture_gives_an_empty_store_again(valkey_url: str) -> None:
    assert ask(Path(valkey_url.removeprefix("unix://")), "DBSIZE") == b":0\r\n"


def test_a_socket_left_by_a_killed_server_is_no_problem(tmp_path: Path) -> None:
    spec = valkey_spec(tmp_path)
    with running(spec) as child:
        os.kill(child.pid, signal.SIGKILL)
    assert valkey_socket(tmp_path).exists()
    assert not answers(valkey_socket(tmp_path))
    with running(spec):
        assert ask(valkey_socket(tmp_path), "PING") == b"+PONG\r\n"


def test_a_path_too_long_for_a_socket_is_no_problem(tmp_path: Path) -> None:
    state = tmp_path / ("long-" * 20)
    with running(valkey_spec(state)):
        path = valkey_socket(state)
        assert not path.is_relative_to(state)
        assert ask(path, "PING") == b"+PONG\r\n"
    path.parent.rmdir()
