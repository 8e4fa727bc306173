"""Spans in: OTLP over HTTP, spooled before they are acknowledged; PostgreSQL may be away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from tidegate.base import RequestError
from tidegate.console.door import refusal, status_of
from tidegate.ledger import (
    JSON,
    LARGEST_BODY,
    PROTOBUF,
    Decoded,
    Span,
    SpanBatch,
    SpoolWriter,
    backlog,
    decode,
)

MOST_BACKLOG = 64 << 20
"""Bytes of spooled spans; beyond it exporters are asked to wait."""
_ROTATE = 4 << 20
"""Bytes after which a spool file is left: until it is let go it counts as waiting, all of it."""
_SPANS_A_RECORD = 2000
_TEND = 5.0


class SpanInbox:
    """The span spool of this process. Used by one event loop."""

    def __init__(self, folder: Path, *, most_backlog: int = MOST_BACKLOG) -> None:
        self._folder = folder
        self._writer = SpoolWriter(folder, rotate_bytes=_ROTATE)
        self._most = most_backlog
        self._backlog = 0
        self._looked = float("-inf")

    def put(self, spans: Sequence[Span]) -> None:
        """Spool ``spans``. RequestError 503 ``span_backlog_full`` or ``span_spool_unwritable``."""
        if self._bytes_waiting() > self._most:
            raise RequestError(
                503,
                "span_backlog_full",
                f"{self._most >> 20} MiB of spans wait for PostgreSQL",
                cure="look at the loader's log in .tidegate/log; exporters try again by themselves",
            )
        self._writer.retry()
        self._require_disk()
        seen = time.time()
        for at in range(0, len(spans), _SPANS_A_RECORD):
            batch = SpanBatch(seen=seen, spans=tuple(spans[at : at + _SPANS_A_RECORD]))
            self._writer.append(msgspec.json.encode(batch))
        self._require_disk()  # what is sent again is stored once

    def _require_disk(self) -> None:
        if self._writer.statistics().degraded:
            raise RequestError(
                503,
                "span_spool_unwritable",
                f"spans cannot be written to {self._folder.name}",
                cure="free the disk that holds .tidegate; exporters try again by themselves",
            )

    async def tend(self) -> None:
        """Close spool files that are old enough, until cancelled; then close the spool."""
        try:
            while True:
                await asyncio.sleep(_TEND)
                self._writer.tend()
        finally:
            self._writer.close()

    def _bytes_waiting(self) -> int:
        now = time.monotonic()
        if now - self._looked > 1.0:
            self._looked, self._backlog = now, backlog(self._folder)
        return self._backlog + self._writer.statistics().waiting_bytes


async def receive_traces(request: Request, inbox: SpanInbox) -> Response:
    """POST /v1/traces: 200 once the spans are spooled, with what was left out."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        body = await _read(request)
        encoding = request.headers.get("content-encoding", "")
        decoded = await run_in_threadpool(decode, body, kind, encoding)
        if decoded.spans:
            inbox.put(decoded.spans)
    except RequestError as error:
        return _refusal(error, kind)
    return _accepted(decoded, kind)


async def _read(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > LARGEST_BODY:
            raise RequestError(
                413,
                "otlp_too_large",
                f"the request holds a body of more than {LARGEST_BODY >> 20} MiB",
                cure="send smaller batches",
            )
        parts.append(part)
    return b"".join(parts)


def _accepted(decoded: Decoded, kind: str) -> Response:
    if kind == JSON:
        partial = {"rejectedSpans": str(decoded.rejected), "errorMessage": decoded.reason}
        body = {"partialSuccess": partial} if decoded.rejected else {}
        return Response(msgspec.json.encode(body), media_type=JSON)
    message = ExportTraceServiceResponse()
    if decoded.rejected:
        message.partial_success.rejected_spans = decoded.rejected
        message.partial_success.error_message = decoded.reason
    return Response(message.SerializeToString(), media_type=PROTOBUF)


def _refusal(error: RequestError, kind: str) -> Response:
    """A google.rpc.Status, as OTLP wants: the message carries our code and cure."""
    plain = refusal(error)
    if kind != PROTOBUF:
        return plain
    text = str(error).encode()
    status = b"\x08" + _varint(3 if error.status < 500 else 14) + b"\x12" + _varint(len(text))
    headers = {k: v for k, v in plain.headers.items() if k in ("retry-after",)}
    return Response(status + text, status_of(error), headers, media_type=PROTOBUF)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
