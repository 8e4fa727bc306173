"""A pool's port is free and stays out of the ephemeral range; its probe is not fooled."""

from __future__ import annotations

import socket

import pytest

from tidegate.base.errors import PoolError
from tidegate.pools.loopback import free_port, is_free, make_probe
from tidegate.testing import ModelServer


def test_a_free_port_lies_below_the_ephemeral_range() -> None:
    port = free_port()
    assert 20_000 <= port < 32_000
    assert is_free(port)


def test_no_free_port_says_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not is_free(port)
        with pytest.raises(PoolError) as error:
            free_port(range(port, port + 1))
    assert error.value.code == "no_free_port"


def test_the_probe_wants_the_model_and_the_key() -> None:
    with ModelServer(models=("small",), api_key="k") as server:
        assert make_probe(server.port, "k", "small")()
        assert not make_probe(server.port, "k", "other")()
        assert not make_probe(server.port, "wrong", "small")()
    assert not make_probe(server.port, "k", "small")()


def test_a_stranger_on_the_port_is_a_no() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert not make_probe(silent.getsockname()[1], "k", "small", timeout=0.2)()
