"""OTLP in both forms gives the same spans; nothing that arrives can exhaust or crash the door."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
from typing import Any

import msgspec
import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tidegate.base.errors import RequestError
from tidegate.ledger import otlp
from tidegate.ledger.otlp import JSON, PROTOBUF, decode
from tidegate.ledger.spans import SpanBatch

TRACE, SPAN, PARENT = bytes(range(1, 17)), bytes(range(1, 9)), bytes(range(11, 19))


def make_request(count: int = 1, **fields: Any) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    service = resource.resource.attributes.add(key="service.name")
    service.value.string_value = "фитнес"
    scope = resource.scope_spans.add()
    for _ in range(count):
        span = scope.spans.add(
            **{
                "trace_id": TRACE,
                "span_id": SPAN,
                "parent_span_id": PARENT,
                "name": "get plan 训练",
                "start_time_unix_nano": 1_790_000_000_000_000_000,
                "end_time_unix_nano": 1_790_000_000_500_000_001,
                **fields,
            }
        )
        span.status.code = Status.STATUS_CODE_ERROR
        for key, value in (
            ("tidegate.journey", "get-plan"),
            ("tidegate.note", "x" * 1000),
            ("http.secret", "not kept"),
        ):
            span.attributes.add(key=key).value.string_value = value
        span.attributes.add(key="tidegate.attempt").value.int_value = 2
        span.attributes.add(key="tidegate.cancelled").value.bool_value = True
    return request


def as_json(request: ExportTraceServiceRequest) -> bytes:
    """The JSON form of OTLP, which is that of protobuf but for ids in hex."""
    message = MessageToDict(request)
    for resource in message["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                span |= {
                    "traceId": TRACE.hex(),
                    "spanId": SPAN.hex(),
                    "parentSpanId": PARENT.hex().upper(),
                    "unknownField": {"a": [1]},
                }
    return json.dumps(message).encode()


def test_both_forms_plain_and_packed_give_the_same_span() -> None:
    request = make_request()
    body = request.SerializeToString()
    (span,) = decode(body, PROTOBUF).spans
    assert span.trace == TRACE.hex()
    assert span.parent == PARENT.hex()
    assert (span.journey, span.stage, span.service) == ("get-plan", None, "фитнес")
    assert span.error
    assert span.end_ns - span.start_ns == 500_000_001
    assert span.attributes == {
        "tidegate.note": "x" * 256,
        "tidegate.attempt": 2,
        "tidegate.cancelled": True,
    }
    text = as_json(request)
    assert decode(text, "application/json; charset=utf-8").spans == [span]
    assert decode(gzip.compress(body), PROTOBUF, "gzip").spans == [span]
    assert decode(gzip.compress(text), JSON, "GZIP").spans == [span]


@pytest.mark.parametrize(
    "fields",
    [
        {"trace_id": b""},
        {"trace_id": bytes(16)},
        {"span_id": b"\x01"},
        {"start_time_unix_nano": 0},
        {"start_time_unix_nano": (1 << 64) - 1},
    ],
)
def test_a_span_that_cannot_be_placed_is_left_out_and_counted(fields: dict[str, Any]) -> None:
    request = make_request()
    request.MergeFrom(make_request(**fields))
    decoded = decode(request.SerializeToString(), PROTOBUF)
    assert (len(decoded.spans), decoded.rejected) == (1, 1)
    assert decoded.reason


def test_a_span_that_ends_before_it_starts_has_no_length() -> None:
    (span,) = decode(make_request(end_time_unix_nano=5).SerializeToString(), PROTOBUF).spans
    assert span.end_ns == span.start_ns


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_every_span_survives_the_spool(value: float) -> None:
    request = make_request()
    span = request.resource_spans[0].scope_spans[0].spans[0]
    span.attributes.add(key="tidegate.score").value.double_value = value
    batch = SpanBatch(seen=1.0, spans=tuple(decode(request.SerializeToString(), PROTOBUF).spans))
    (kept,) = msgspec.json.decode(msgspec.json.encode(batch), type=SpanBatch).spans
    assert kept.attributes.get("tidegate.score") == (value if value == 1e300 else None)
    assert kept.attributes["tidegate.attempt"] == 2


def test_control_characters_are_taken_out_of_names() -> None:
    (span,) = decode(make_request(name="a\x00b\tc\nd").SerializeToString(), PROTOBUF).spans
    assert span.name == "a b c d"


@pytest.mark.parametrize(
    ("status", "code", "arguments"),
    [
        (415, "otlp_media_type", (b"", "text/html")),
        (415, "otlp_encoding", (b"", PROTOBUF, "br")),
        (400, "otlp_malformed", (b"\xff\xff\xff", PROTOBUF)),
        (400, "otlp_malformed", (b"{", JSON)),
        (400, "otlp_malformed", (b'{"resourceSpans":[{"scopeSpans":3}]}', JSON)),
        (
            400,
            "otlp_malformed",
            (b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"zz"}]}]}]}', JSON),
        ),
        (400, "otlp_malformed", (b"[" * 100_000, JSON)),
        (400, "otlp_malformed", (b'{"x":' + b"[" * 100_000, JSON)),
        (400, "otlp_malformed", (b"no gzip", PROTOBUF, "gzip")),
        (400, "otlp_malformed", (gzip.compress(b"x" * 999)[:-9], PROTOBUF, "gzip")),
        (413, "otlp_too_large", (b"x" * (otlp.LARGEST_BODY + 1), PROTOBUF)),
        (413, "otlp_too_large", (gzip.compress(bytes(otlp.LARGEST_INFLATED + 1)), JSON, "gzip")),
    ],
)
def test_bad_requests_have_a_code_and_a_cure(
    status: int, code: str, arguments: tuple[Any, ...]
) -> None:
    with pytest.raises(RequestError) as caught:
        decode(*arguments)
    assert (caught.value.status, caught.value.code) == (status, code)
    assert caught.value.cure


def test_a_batch_beyond_the_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "MOST_SPANS", 10)
    assert len(decode(make_request(10).SerializeToString(), PROTOBUF).spans) == 10
    with pytest.raises(RequestError, match="more than 10 spans"):
        decode(make_request(11).SerializeToString(), PROTOBUF)


def test_garbage_is_refused_or_read_but_never_crashes() -> None:
    rng = random.Random(4)
    bodies = [make_request(3).SerializeToString(), as_json(make_request(3))]
    for _ in range(600):
        kind = rng.randrange(2)
        body = bytearray(bodies[kind])
        for _ in range(rng.randrange(1, 6)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        with contextlib.suppress(RequestError):
            decode(bytes(body), (PROTOBUF, JSON)[kind])
