"""The OTLP exporter to the operator's door: quiet in an outage, and it keeps the newest spans."""

from __future__ import annotations

import http.client
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from tidegate.base import RuntimeStateError
from tidegate.sdk.rules import delivery_of, pause_after
from tidegate.sdk.settings import ExportTarget

log = logging.getLogger("tidegate.sdk")

KEEP = 4096
"""Spans kept while the operator's door is unreachable; older ones are dropped."""
BATCH = 512
"""Spans of one request."""


class ExportStatistics(NamedTuple):
    """Counts of spans since the start."""

    sent: int
    waiting: int
    dropped: int


class OtlpExporter(SpanExporter):
    """OTLP over HTTP, protobuf. Called by the batch processor's own thread, never by the app's.

    The official HTTP exporter logs each failure and blocks its thread in retries; an app must
    not notice its operator's absence, so this one sends with a short deadline, is quiet after
    one warning for each outage, and looks the address up again before the next try.
    """

    def __init__(self, resolve: Callable[[], ExportTarget], *, deadline: float = 2.0) -> None:
        self._resolve = resolve
        self._deadline = deadline
        self._target: ExportTarget | None = None
        self._waiting: deque[ReadableSpan] = deque(maxlen=KEEP)
        self._failures = 0
        self._not_before = 0.0
        self._warned = False
        self._sent = 0
        self._dropped = 0
        self._closed = False
        self._retry: threading.Timer | None = None
        self._lock = threading.Lock()

    def statistics(self) -> ExportStatistics:
        return ExportStatistics(self._sent, len(self._waiting), self._dropped)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._lock:
            # The deque drops its oldest without a word, so they are counted before it does.
            self._dropped += max(0, len(self._waiting) + len(spans) - KEEP)
            self._waiting.extend(spans)
            if time.monotonic() < self._not_before and not self._closed:
                return SpanExportResult.FAILURE
            if self._retry is not None:
                self._retry.cancel()
            return self._send_waiting()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        with self._lock:
            return self._send_waiting() is SpanExportResult.SUCCESS

    def close_soon(self) -> None:
        """Announce that the next export is the last, which is tried even in a pause.

        Takes no lock: a send under way holds it for its whole deadline."""
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()

    def shutdown(self) -> None:
        with self._lock:
            if self._waiting:
                self._send_waiting()
            self._dropped += len(self._waiting)
            self._waiting.clear()

    def _send_waiting(self) -> SpanExportResult:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            delivered, again, why = self._post(batch)
            if delivered:
                self._sent += len(batch)
                self._recovered()
            elif again:
                self._waiting.extendleft(reversed(batch))
                self._failed(why)
                return SpanExportResult.FAILURE
            else:
                self._dropped += len(batch)
                self._failed(why)
                return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def _post(self, batch: Sequence[ReadableSpan]) -> tuple[bool, bool, str]:
        """Send one request; (delivered, worth sending again, sentence)."""
        try:
            target = self._target = self._target or self._resolve()
        except RuntimeStateError as error:
            return False, True, error.message
        headers = {"content-type": "application/x-protobuf", "connection": "close"}
        if target.token:
            headers["authorization"] = f"Bearer {target.token}"
        parts = urlsplit(target.operator_url)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        connection = kind(parts.netloc, timeout=self._deadline)
        try:
            body = encode_spans(batch).SerializeToString()
            connection.request("POST", f"{parts.path}/v1/traces", body, headers)
            return delivery_of(connection.getresponse().status)
        except (OSError, http.client.HTTPException) as error:
            return False, True, f"the operator's door at {target.operator_url} is away ({error})"
        finally:
            connection.close()

    def _failed(self, why: str) -> None:
        self._failures += 1
        pause = pause_after(self._failures)
        self._not_before = time.monotonic() + pause
        self._target = None
        if self._waiting and not self._closed:
            # An app that goes idle brings no further batch that would try again.
            self._retry = threading.Timer(pause, self.force_flush)
            self._retry.daemon = True
            self._retry.start()
        if not self._warned:
            self._warned = True
            log.warning(
                "journeys are not being recorded: %s. The newest %d spans are kept and sent when "
                "it answers; nothing else changes for the app.",
                why,
                KEEP,
            )

    def _recovered(self) -> None:
        if self._warned:
            log.info("journeys are being recorded again")
        self._failures, self._not_before, self._warned = 0, 0.0, False
