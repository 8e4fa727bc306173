"""Free ports on 127.0.0.1, and the readiness probe of pools."""

from __future__ import annotations

import http.client
import random
import socket
from collections.abc import Callable

import msgspec

from tidegate.base import PoolError

_PORTS = range(20_000, 32_000)
"""Below the kernel's ephemeral range (32768 on Linux): a pool keeps its port over restarts, and
no outgoing connection may take it in between."""
_LONGEST = 1 << 20
"""Bytes of a list of models that are read."""


class _Named(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Named]


def is_free(port: int) -> bool:
    """Whether ``port`` of 127.0.0.1 can be listened on now."""
    with socket.socket() as probe:
        # As servers do; without it the remains of closed connections would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(ports: range = _PORTS, tries: int = 200) -> int:
    """A port that nobody listens on; PoolError ``no_free_port`` when none was found."""
    for port in random.SystemRandom().sample(ports, min(tries, len(ports))):
        if is_free(port):
            return port
    raise PoolError(
        "no_free_port",
        f"no free port among {tries} tried from {ports.start} to {ports.stop - 1} on 127.0.0.1",
        cure="end programs that listen there",
    )


def make_probe(port: int, key: str, model: str, timeout: float = 2.0) -> Callable[[], bool]:
    """A probe that says yes once ``GET /v1/models`` with the key names ``model``.

    More than ``/health``: a stranger on the same port, or a server of another key, is a no.
    """

    def probe() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        try:
            connection.request("GET", "/v1/models", headers={"authorization": f"Bearer {key}"})
            answer = connection.getresponse()
            return answer.status == 200 and names_model(answer.read(_LONGEST), model)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return probe


def names_model(body: bytes, model: str) -> bool:
    """Whether ``body`` is a list of models that has ``model``; another program on the port may send
    anything."""
    try:
        found = msgspec.json.decode(body, type=_Models).data
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return False
    return any(entry.id == model for entry in found)
