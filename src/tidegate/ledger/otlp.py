"""Spans out of OTLP/HTTP requests: protobuf or JSON, plain or gzip, bounded in every direction.

OpenTelemetry protocol 1.x, "OTLP/HTTP"; in its JSON form ids are hex and 64-bit numbers may be
strings. What is wrong with a request as a whole is a RequestError; a span that cannot be kept is
left out and counted, as the protocol's partial success asks.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tidegate.base import RequestError
from tidegate.ledger.spans import (
    JOURNEY,
    LONGEST_VALUE,
    MOST_ATTRIBUTES,
    STAGE,
    Scalar,
    Span,
    tidy,
)

LARGEST_BODY = 8 << 20
LARGEST_INFLATED = 32 << 20
MOST_SPANS = 20_000
PROTOBUF, JSON = "application/x-protobuf", "application/json"

_PREFIX = "tidegate."
_ERROR = 2
_LATEST_NS = 1 << 62


class Decoded(NamedTuple):
    """``rejected``: how many spans were left out, ``reason``: why the first of them."""

    spans: list[Span]
    rejected: int
    reason: str


def decode(body: bytes, content_type: str, content_encoding: str = "") -> Decoded:
    """The spans in one request.

    RequestError: 413 ``otlp_too_large``, 415 ``otlp_media_type`` or ``otlp_encoding``,
    400 ``otlp_malformed``.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in _READERS:
        raise RequestError(
            415,
            "otlp_media_type",
            f"content type {tidy(kind, 80)!r} is not one of OTLP",
            cure=f"send {PROTOBUF} or {JSON}",
        )
    plain = _inflate(body, content_encoding.strip().lower())
    spans: list[Span] = []
    rejected, reason = 0, ""
    for raw in _READERS[kind](plain):
        if len(spans) + rejected >= MOST_SPANS:
            raise _too_large(f"more than {MOST_SPANS} spans")
        made = _span(raw)
        if isinstance(made, Span):
            spans.append(made)
        else:
            rejected, reason = rejected + 1, reason or made
    return Decoded(spans, rejected, reason)


class _Raw(NamedTuple):
    """A span of either form."""

    trace: bytes
    span: bytes
    parent: bytes
    name: str
    service: str
    start: int
    end: int
    status: int
    attributes: Iterable[tuple[str, Scalar]]


def _span(raw: _Raw) -> Span | str:
    """The span that is kept, or why it is not."""
    if len(raw.trace) != 16 or len(raw.span) != 8 or not any(raw.trace) or not any(raw.span):
        return "a span has no valid trace id or span id"
    if not 0 < raw.start < _LATEST_NS or raw.end > _LATEST_NS:
        return "a span has no valid start time"
    attributes: dict[str, Scalar] = {}
    for key, value in raw.attributes:
        if key.startswith(_PREFIX) and len(attributes) < MOST_ATTRIBUTES and _kept(value):
            text = isinstance(value, str)
            attributes[tidy(key)] = tidy(str(value), LONGEST_VALUE) if text else value
    return Span(
        trace=raw.trace.hex(),
        span=raw.span.hex(),
        parent=raw.parent.hex() if len(raw.parent) == 8 and any(raw.parent) else None,
        name=tidy(raw.name),
        service=tidy(raw.service),
        start_ns=raw.start,
        end_ns=max(raw.start, raw.end),
        error=raw.status == _ERROR,
        journey=_named(attributes.pop(JOURNEY, None)),
        stage=_named(attributes.pop(STAGE, None)),
        attributes=attributes,
    )


def _kept(value: Scalar) -> bool:
    """JSON, in which spans are spooled, has no NaN and no infinity."""
    return not isinstance(value, float) or math.isfinite(value)


def _named(value: Scalar | None) -> str | None:
    name = tidy(str(value)).strip() if value is not None else ""
    return name or None


def _inflate(body: bytes, encoding: str) -> bytes:
    if len(body) > LARGEST_BODY:
        raise _too_large(f"a body of more than {LARGEST_BODY >> 20} MiB")
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise RequestError(
            415,
            "otlp_encoding",
            f"content encoding {tidy(encoding, 80)!r} is not known here",
            cure="send gzip or no content encoding",
        )
    inflater = zlib.decompressobj(wbits=31)
    try:
        plain = inflater.decompress(body, LARGEST_INFLATED + 1)
    except zlib.error as error:
        raise _malformed(f"the body is not gzip ({error})") from None
    if len(plain) > LARGEST_INFLATED:
        raise _too_large(f"more than {LARGEST_INFLATED >> 20} MiB when unpacked")
    if not inflater.eof:
        raise _malformed("the gzip body ends too early")
    return plain


def _too_large(what: str) -> RequestError:
    return RequestError(
        413, "otlp_too_large", f"the request holds {what}", cure="send smaller batches"
    )


def _malformed(what: str) -> RequestError:
    return RequestError(
        400, "otlp_malformed", what, cure="send an ExportTraceServiceRequest of OTLP 1.x"
    )


# Protobuf


def _read_protobuf(body: bytes) -> Iterator[_Raw]:
    try:
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise _malformed(f"the body is not an OTLP trace request ({error})") from None
    for resource in request.resource_spans:
        service = _service(_pairs(resource.resource.attributes))
        for scope in resource.scope_spans:
            for s in scope.spans:
                yield _Raw(
                    s.trace_id,
                    s.span_id,
                    s.parent_span_id,
                    s.name,
                    service,
                    s.start_time_unix_nano,
                    s.end_time_unix_nano,
                    s.status.code,
                    _pairs(s.attributes),
                )


def _pairs(attributes: Iterable[Any]) -> Iterator[tuple[str, Scalar]]:
    for attribute in attributes:
        which = attribute.value.WhichOneof("value")
        if which in ("string_value", "int_value", "double_value", "bool_value"):
            yield attribute.key, getattr(attribute.value, which)


def _service(pairs: Iterable[tuple[str, Scalar]]) -> str:
    return next((str(value) for key, value in pairs if key == "service.name"), "")


# JSON


class _Value(msgspec.Struct, rename="camel"):
    string_value: str | None = None
    int_value: int | str | None = None
    double_value: float | None = None
    bool_value: bool | None = None

    def scalar(self) -> Scalar | None:
        if isinstance(self.int_value, str):
            return int(self.int_value)
        for value in (self.string_value, self.int_value, self.double_value, self.bool_value):
            if value is not None:
                return value
        return None


class _Attribute(msgspec.Struct):
    key: str = ""
    value: _Value = msgspec.field(default_factory=_Value)


class _Status(msgspec.Struct):
    code: int | str = 0


class _JsonSpan(msgspec.Struct, rename="camel"):
    trace_id: str = ""
    span_id: str = ""
    parent_span_id: str = ""
    name: str = ""
    start_time_unix_nano: int | str = 0
    end_time_unix_nano: int | str = 0
    attributes: list[_Attribute] = []
    status: _Status = msgspec.field(default_factory=_Status)


class _Scope(msgspec.Struct):
    spans: list[_JsonSpan] = []


class _Resource(msgspec.Struct):
    attributes: list[_Attribute] = []


class _ResourceSpans(msgspec.Struct, rename="camel"):
    resource: _Resource = msgspec.field(default_factory=_Resource)
    scope_spans: list[_Scope] = []


class _Request(msgspec.Struct, rename="camel"):
    resource_spans: list[_ResourceSpans] = []


_json = msgspec.json.Decoder(_Request)
_STATUS = {"STATUS_CODE_ERROR": _ERROR}


def _read_json(body: bytes) -> Iterator[_Raw]:
    try:
        request = _json.decode(body)
        for resource in request.resource_spans:
            service = _service(_json_pairs(resource.resource.attributes))
            for scope in resource.scope_spans:
                for span in scope.spans:
                    yield _raw_of_json(span, service)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise _malformed(f"the body is not an OTLP trace request ({error})") from None


def _raw_of_json(span: _JsonSpan, service: str) -> _Raw:
    code = span.status.code
    return _Raw(
        bytes.fromhex(span.trace_id),
        bytes.fromhex(span.span_id),
        bytes.fromhex(span.parent_span_id),
        span.name,
        service,
        int(span.start_time_unix_nano),
        int(span.end_time_unix_nano),
        code if isinstance(code, int) else _STATUS.get(code, 0),
        list(_json_pairs(span.attributes)),
    )


def _json_pairs(attributes: Iterable[_Attribute]) -> Iterator[tuple[str, Scalar]]:
    for attribute in attributes:
        scalar = attribute.value.scalar()
        if scalar is not None:
            yield attribute.key, scalar


_READERS: dict[str, Callable[[bytes], Iterator[_Raw]]] = {
    PROTOBUF: _read_protobuf,
    JSON: _read_json,
}
