"""The one span processor of a provider: OpenTelemetry can add processors, but remove none."""

from __future__ import annotations

import threading
import weakref

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from tidegate.sdk.export import ExportStatistics, OtlpExporter

_relays: weakref.WeakKeyDictionary[TracerProvider, Relay] = weakref.WeakKeyDictionary()


class Relay(SpanProcessor):
    """A span processor that passes ended spans on while it is open, and drops them while closed."""

    def __init__(self) -> None:
        self._batches: BatchSpanProcessor | None = None
        self._exporter: OtlpExporter | None = None

    def open(self, exporter: OtlpExporter, *, queue: int, delay_ms: int) -> None:
        self._exporter = exporter
        self._batches = BatchSpanProcessor(
            exporter, max_queue_size=queue, schedule_delay_millis=delay_ms
        )

    def close(self, wait_s: float) -> None:
        """Send the waiting spans; a daemon thread goes on with what is not sent in ``wait_s``
        seconds, so that an app never hangs at its end."""
        batches, self._batches = self._batches, None
        if batches is None:
            return
        if self._exporter is not None:
            self._exporter.close_soon()
        ending = threading.Thread(target=batches.shutdown, name="tidegate-sdk-end", daemon=True)
        ending.start()
        ending.join(wait_s)

    def statistics(self) -> ExportStatistics:
        return self._exporter.statistics() if self._exporter else ExportStatistics(0, 0, 0)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        return

    def on_end(self, span: ReadableSpan) -> None:
        if self._batches is not None:
            self._batches.on_end(span)

    def shutdown(self) -> None:
        self.close(3.0)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._batches is None or self._batches.force_flush(timeout_millis)


def relay_of(provider: TracerProvider) -> Relay:
    """The provider's relay, added to it on the first call."""
    if provider not in _relays:
        _relays[provider] = Relay()
        provider.add_span_processor(_relays[provider])
    return _relays[provider]
