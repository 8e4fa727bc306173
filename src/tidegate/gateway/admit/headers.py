"""Read the trace context and the bearer key of a request; nonsense is ignored, never an error.

Sources: W3C Trace Context (traceparent, version 00) and W3C Baggage.
"""

from __future__ import annotations

from urllib.parse import unquote

from tidegate.gateway.values import NO_CONTEXT, TraceContext
from tidegate.gateway.wire.http_server import HttpRequest

_HEX = frozenset("0123456789abcdef")


def read_context(request: HttpRequest) -> TraceContext:
    """Trace, parent span and journey, as the headers of the request say."""
    trace = parent = journey = None
    traceparent = request.header(b"traceparent")
    if traceparent is not None:
        trace, parent = parse_traceparent(traceparent)
        baggage = request.header(b"baggage")
        if baggage is not None and "tidegate.journey" in baggage:
            journey = journey_of(baggage)
    if journey is None:
        journey = request.header(b"x-tidegate-journey")
    if trace is None and journey is None:
        return NO_CONTEXT
    return TraceContext(trace, parent, journey)


def parse_traceparent(value: str) -> tuple[str | None, str | None]:
    """(trace id, span id), or (None, None) when the header is not valid. Of versions to come the
    part that they share with version 00 is read, as the standard asks."""
    if len(value) < 55 or value[2] != "-" or value[35] != "-" or value[52] != "-":
        return None, None
    version = value[:2]
    if version == "ff" or (len(value) > 55 and (version == "00" or value[55] != "-")):
        return None, None
    if not (_HEX.issuperset(version) and _HEX.issuperset(value[53:55])):
        return None, None
    trace, span = value[3:35], value[36:52]
    if not (_HEX.issuperset(trace) and _HEX.issuperset(span)):
        return None, None
    if trace.count("0") == 32 or span.count("0") == 16:
        return None, None
    return trace, span


def journey_of(baggage: str) -> str | None:
    """The value of ``tidegate.journey`` in a W3C Baggage header."""
    for member in baggage.split(","):
        name, _, value = member.partition("=")
        if name.strip() == "tidegate.journey":
            return unquote(value.partition(";")[0].strip())[:64] or None
    return None


def bearer(header: str | None) -> str | None:
    """The token of ``Authorization: Bearer <token>``; None when there is none."""
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token else None
