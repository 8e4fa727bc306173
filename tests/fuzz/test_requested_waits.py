"""Whatever a provider says about waiting is a sound number of seconds, or nothing."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.budget import fuzz
from tests.fuzz.inputs import broken_bytes
from tidegate.gateway.call.retries import requested_wait

NAMES = [
    b"retry-after", b"retry-after-ms", b"x-ratelimit-reset", b"x-ratelimit-reset-requests",
    b"x-ratelimit-reset-tokens", b"x-ratelimit-remaining-requests",
    b"anthropic-ratelimit-requests-reset", b"anthropic-ratelimit-requests-remaining",
]  # fmt: skip
VALUES = [
    b"7", b"1.5", b"0", b"1790000000", b"1m30s", b"250ms", b"2026-10-21T07:28:00Z",
    b"Wed, 21 Oct 2026 07:28:00 GMT", b"Wednesday, 21-Oct-26 07:28:00 GMT",
    b"Wed Oct 21 07:28:00 2026",
]  # fmt: skip
TOKENS = [
    b"-", b"+", b"_", b":", b"\x00", b"\xff", b"\xb2", b"nan", b"inf", b"1e999", b"9" * 400,
    b"99999", b"0000", b"Feb", b"31", b" GMT",
]  # fmt: skip


@fuzz(400)
@given(
    headers=st.dictionaries(st.sampled_from(NAMES), broken_bytes(VALUES, TOKENS)),
    now=st.sampled_from([0.0, 1.79e9]),
)
def test_any_header_is_a_wait_or_none(headers: dict[bytes, bytes], now: float) -> None:
    wait = requested_wait(headers, now)
    assert wait is None or (math.isfinite(wait) and 0 <= wait <= 86_400)
