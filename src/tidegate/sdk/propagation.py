"""Trace headers for requests to the gateway, and to no other address: others must not see them."""

from __future__ import annotations

from urllib.parse import quote

from opentelemetry import baggage
from opentelemetry.context import Context
from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

from tidegate.sdk.rules import HttpOrigin, may_carry_trace

JOURNEY = "tidegate.journey"
STAGE = "tidegate.stage"

_gateway: HttpOrigin | None = None


def set_gateway(origin: HttpOrigin | None) -> None:
    """Name the one origin that may receive trace context."""
    global _gateway
    _gateway = origin


def trace_headers(url: str | None = None, context: Context | None = None) -> dict[str, str]:
    """Headers that join one HTTP request with the journey that is under way.

    For HTTP clients other than the official OpenAI one:
    ``httpx.post(url, headers={**trace_headers(url), ...})``. With ``url``, the headers are empty
    unless it is the gateway's. Empty outside of any journey or stage. Never raises.

    ``traceparent`` is that of W3C Trace Context; ``baggage`` (W3C Baggage) carries the journey's
    name and nothing else that the app may have in its baggage.
    """
    if url is not None and not may_carry_trace(url, _gateway)[0]:
        return {}
    headers: dict[str, str] = {}
    span = get_current_span(context).get_span_context()
    if span.is_valid:
        trace, parent = format_trace_id(span.trace_id), format_span_id(span.span_id)
        headers["traceparent"] = f"00-{trace}-{parent}-{int(span.trace_flags):02x}"
    journey = baggage.get_baggage(JOURNEY, context)
    if isinstance(journey, str):
        headers["baggage"] = f"{JOURNEY}={quote(journey, safe='')}"
    return headers
