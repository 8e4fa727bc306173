"""Probes of ports and HTTP servers on this machine."""

from __future__ import annotations

import errno
import http.client
import socket
from urllib.parse import urlsplit

from tidegate.base import RuntimeStateError


def answers_ok(url: str, timeout: float = 3.0) -> bool:
    """Whether ``GET url`` is answered with 200."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        connection.request("GET", parts.path or "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def ensure_port_free(host: str, port: int, option: str) -> None:
    """RuntimeStateError ``port_taken``, ``port_forbidden`` or ``host_unknown`` when a server could
    not listen there; ``option`` is how the port is chosen on the command line."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            raise RuntimeStateError(
                "port_forbidden",
                f"this user may not listen on port {port}",
                cure=f"choose a port above 1023: {option} 8080",
            ) from None
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise RuntimeStateError(
                    "host_unknown",
                    f"this machine cannot listen on {host}: {error.strerror or error}",
                    cure="use --host 127.0.0.1, or an address of this machine",
                ) from None
            raise RuntimeStateError(
                "port_taken",
                f"another program listens on {host}:{port}",
                cure=f"stop it, or choose another port: {option} {port + 10}",
            ) from None
