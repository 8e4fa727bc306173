"""OpenTelemetry spans from any app: protobuf, JSON and gzip, whatever came of them."""

from __future__ import annotations

import gzip
import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.budget import fuzz
from tests.fuzz.inputs import broken_bytes, broken_json
from tests.ledger.test_otlp import as_json, make_request
from tidegate.base.errors import RequestError
from tidegate.ledger.otlp import JSON, PROTOBUF, decode
from tidegate.ledger.spans import SpanBatch

PROTO = make_request(2).SerializeToString()
TREE = json.loads(as_json(make_request(2)))
TOKENS = [
    b"\x00",
    b"\xff",
    b"\x0a\xff\xff\xff\xff\x0f",
    b"\x12\x00",
    b'"',
    b"{",
    b"[" * 3000,
    b"null",
]
BODIES = st.one_of(
    broken_bytes([PROTO, as_json(make_request()), gzip.compress(PROTO)], TOKENS),
    broken_json([TREE]).map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=40),
)
KINDS = st.sampled_from([PROTOBUF, JSON, f"{JSON}; charset=utf-8", "text/plain", "", "\x00"])


@fuzz(500)
@given(body=BODIES, kind=KINDS, packed=st.booleans(), told=st.sampled_from(["", "gzip", "br"]))
def test_any_spans_are_kept_left_out_or_refused(
    body: bytes, kind: str, packed: bool, told: str
) -> None:
    try:
        decoded = decode(gzip.compress(body, 1) if packed else body, kind, told)
    except RequestError as error:
        assert error.status in (400, 413, 415)
        assert error.code.startswith("otlp_")
        assert len(error.message) < 2000
        return
    assert decoded.rejected >= 0
    batch = SpanBatch(seen=0.0, spans=tuple(decoded.spans))
    assert msgspec.json.decode(msgspec.json.encode(batch), type=SpanBatch) == batch
    for span in decoded.spans:
        assert (len(span.trace), len(span.span)) == (32, 16)
        assert 0 < span.start_ns <= span.end_ns < 1 << 63
        assert "\x00" not in span.name + span.service + (span.journey or "") + (span.stage or "")
