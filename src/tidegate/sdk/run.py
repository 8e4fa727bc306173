"""Start and shutdown of the SDK. It raises nothing: whatever fails here, the app goes on."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from opentelemetry import trace

from tidegate.base import RuntimeStateError
from tidegate.sdk import openai_client
from tidegate.sdk.propagation import set_gateway
from tidegate.sdk.settings import ExportTarget, Sources

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from tidegate.sdk.relay import Relay

log = logging.getLogger("tidegate.sdk")

QUEUE = 8192
"""Spans that wait for the sending thread; more are dropped."""
DELAY_MS = 500
"""Milliseconds between two batches."""
FLUSH_S = 3.0
"""How long ``shutdown`` waits for the last spans."""

_lock = threading.Lock()
_relay: Relay | None = None
_started = False
_at_exit = False


def start(
    app_or_endpoint: str | os.PathLike[str] | None = None,
    *,
    service: str | None = None,
    token: str | None = None,
    gateway_url: str | None = None,
) -> None:
    """Record journeys and stages, and send them to the operator's door of Tidegate.

    ``app_or_endpoint`` is the folder with ``tidegate.yaml`` (addresses and token are then read
    from its runtime file) or the URL of the operator's door; default: TIDEGATE_OPERATOR_URL, else
    the working folder. ``token`` defaults to TIDEGATE_OPERATOR_TOKEN. ``gateway_url``
    (TIDEGATE_GATEWAY_URL, or the runtime file) is the one origin whose requests carry trace
    context. ``service`` names the app in its spans.

    An OpenTelemetry provider that the app has set up is used as it is; otherwise a plain one is
    made. Calling it twice changes nothing. It raises nothing: when the door is away, one warning
    is logged, and spans go there once it answers.
    """
    global _relay, _started, _at_exit
    given = None if app_or_endpoint is None else os.fspath(app_or_endpoint)
    sources = Sources(given, token, gateway_url)
    with _lock:
        if _started:
            return
        _started = True
        _relay = _open_relay(sources, service or _service_name(given))
        if not _at_exit:
            _at_exit = True
            atexit.register(shutdown)
    openai_client.install()


def shutdown() -> None:
    """Send what waits (at most 3 s) and undo what ``start`` did. Calling it twice is harmless."""
    global _relay, _started
    with _lock:
        relay, _relay, was_started, _started = _relay, None, _started, False
    if was_started:
        openai_client.uninstall()
        if relay is not None:
            relay.close(FLUSH_S)
        set_gateway(None)


def _resolve(sources: Sources) -> ExportTarget:
    target = sources.resolve()
    set_gateway(target.gateway)
    return target


def _open_relay(sources: Sources, service: str) -> Relay | None:
    # Imported here: naming journeys costs an app only the OpenTelemetry API.
    from tidegate.sdk.export import OtlpExporter
    from tidegate.sdk.relay import relay_of

    try:
        if _resolve(sources).gateway is None:
            log.warning(
                "gateway requests are not joined with journeys: give gateway_url= to start(), or "
                "set TIDEGATE_GATEWAY_URL"
            )
    except RuntimeStateError:
        pass  # the exporter says so, once, when there is something to send
    provider = _provider(service)
    if provider is None:
        return None
    relay = relay_of(provider)
    relay.open(OtlpExporter(lambda: _resolve(sources)), queue=QUEUE, delay_ms=DELAY_MS)
    return relay


def _provider(service: str) -> TracerProvider | None:
    """The app's provider, or a new one; None when the app's cannot take another processor."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    current = trace.get_tracer_provider()
    if isinstance(current, TracerProvider):
        return current
    if isinstance(current, trace.ProxyTracerProvider):
        made = TracerProvider(resource=Resource.create({"service.name": service}))
        trace.set_tracer_provider(made)
        return made
    log.warning(
        "journeys are not recorded: the app's %s is not an OpenTelemetry SDK provider",
        type(current).__name__,
    )
    return None


def _service_name(given: str | None) -> str:
    if name := os.environ.get("OTEL_SERVICE_NAME"):
        return name
    if given is None or given.startswith(("http://", "https://")):
        return Path.cwd().name
    return Path(given).resolve().name
