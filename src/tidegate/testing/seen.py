"""What the simulated server saw, for assertions."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec


@dataclasses.dataclass(slots=True)
class SeenRequest:
    """One request as it arrived, and how it went on. Times are ``time.monotonic()`` seconds."""

    index: int
    """Count of model requests before it; -1 for /health and /v1/models."""
    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case; the last of several equal names."""
    body: bytes
    arrived: float
    at: float = 0.0
    """Seconds of the server's clock since it was made or last ``reset``."""
    fault: str | None = None
    """Name of the fault that was played."""
    status: int | None = None
    """Status of the head that was sent, when one was."""
    tokens_sent: int = 0
    bytes_sent: int = 0
    """Handed to the socket, head included."""
    completed: float | None = None
    """When the answer, as the script wants it, was wholly handed to the socket."""
    client_closed: float | None = None
    """When the connection was lost, from the other side, before that."""

    @property
    def key(self) -> str | None:
        """The provider key that it brought: a bearer token or ``x-api-key``."""
        bearer = self.headers.get("authorization", "")
        return bearer[7:] if bearer.startswith("Bearer ") else self.headers.get("x-api-key")

    @property
    def json(self) -> Any:
        """The decoded body; raises msgspec.DecodeError when it is not JSON."""
        return msgspec.json.decode(self.body)


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the start or the last ``reset``."""

    requests: int
    """Model requests: chat, messages, embeddings."""
    in_flight: int
    completed: int
    client_closed: int
    open_connections: int
    connections: int
    """Connections ever accepted."""
    faults: dict[str, int]
    """Faults played, by name."""
