"""Pure decisions of the SDK: which requests carry trace context, what is sent again, and when."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

_LOOPBACK = {"localhost", "127.0.0.1", "::1", "0.0.0.0"}
_PORTS = {"http": 80, "https": 443}


class HttpOrigin(NamedTuple):
    """Where a URL leads: two URLs with the same origin reach the same listener."""

    scheme: str
    host: str
    port: int


def origin_of(url: str) -> HttpOrigin | None:
    """The origin of ``url``; all names of this machine are one host. None: not an HTTP URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname:
        return None
    host = "localhost" if parts.hostname in _LOOPBACK else parts.hostname
    return HttpOrigin(parts.scheme, host, port or _PORTS[parts.scheme])


def may_carry_trace(url: str, gateway: HttpOrigin | None) -> tuple[bool, str]:
    """Whether trace context may be sent to ``url``: to the gateway only."""
    if gateway is None:
        return False, "the gateway's address is not known"
    if origin_of(url) != gateway:
        return False, f"{url} is not the gateway at {gateway.host}:{gateway.port}"
    return True, "the request goes to the gateway"


def pause_after(failures: int) -> float:
    """Seconds before the next try after ``failures`` failures in a row: 1, 2, 4, ... at most 30."""
    return min(30.0, 2.0 ** min(failures - 1, 5))


def delivery_of(status: int) -> tuple[bool, bool, str]:
    """What the HTTP status of an OTLP response means: (delivered, worth sending again, sentence).

    Source: OTLP specification 1.x, "Failures" of OTLP/HTTP. Beyond it 401 and 403 are worth
    another try: the token is read again when ``tidegate up`` starts anew.
    """
    if 200 <= status < 300:
        return True, False, "delivered"
    if status in (401, 403):
        return False, True, "the operator's door does not know the token"
    if status in (429, 502, 503, 504):
        return False, True, f"the operator's door is busy (HTTP {status})"
    return False, False, f"the operator's door refused the spans (HTTP {status})"
