"""What a failed attempt means, for every status and every fault."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.base.errors import RequestError
from tidegate.gateway.targets import of_fault, of_status
from tidegate.gateway.wire.upstream import FAULTS, UpstreamFault
from tidegate.ledger.receipts import ATTEMPT_CODES


def test_every_fault_is_counted_by_itself() -> None:
    assert set(FAULTS) <= ATTEMPT_CODES


@pytest.mark.parametrize("code", sorted(FAULTS))
def test_every_fault(code: str) -> None:
    failure = of_fault(UpstreamFault(code, "words"))
    assert failure.status in (502, 504)
    assert failure.fall_back is (code != "upstream_total_timeout"), "no time, no other model"
    assert failure.upstream_status is None


@pytest.mark.parametrize(
    ("status", "code", "known", "told", "fall_back"),
    [
        (429, None, "upstream_rate_limited", 429, True),
        (401, "invalid_api_key", "upstream_key_rejected", 502, True),
        (402, None, "upstream_key_rejected", 502, True),
        (403, None, "upstream_key_rejected", 502, True),
        (404, "model_not_found", "upstream_model_missing", 502, True),
        (400, "context_length_exceeded", "context_length_exceeded", 400, True),
        (400, "exceed_context_size_error", "context_length_exceeded", 400, True),
        (413, "context_length_exceeded", "context_length_exceeded", 400, True),
        (400, "content_filter", "content_policy_violation", 400, False),
        (403, "content_filter", "content_policy_violation", 400, False),
        (403, "content_policy_violation", "content_policy_violation", 400, False),
        (401, "content_policy_violation", "upstream_key_rejected", 502, True),
        (400, "invalid_type", "invalid_type", 400, False),
        (422, None, "upstream_refused", 422, False),
        (500, None, "upstream_error", 502, True),
        (503, "overloaded", "upstream_error", 502, True),
        (529, "overloaded_error", "upstream_error", 502, True),
        (302, None, "upstream_error", 502, True),
        (204, None, "upstream_error", 502, True),
    ],
)
def test_statuses(status: int, code: str | None, known: str, told: int, fall_back: bool) -> None:
    failure = of_status(status, code, "said", None)
    assert (failure.code, failure.status, failure.fall_back) == (known, told, fall_back)
    assert failure.upstream_status == status


@given(
    status=st.integers(100, 999).filter(lambda status: status != 200),
    code=st.one_of(st.none(), st.text(max_size=8)),
    message=st.one_of(st.none(), st.text(max_size=8)),
)
def test_no_failure_looks_like_success_or_blames_the_client_s_key(
    status: int, code: str | None, message: str | None
) -> None:
    error = of_status(status, code, message, "3").error("small")
    assert isinstance(error, RequestError)
    assert 400 <= error.status < 600
    assert error.status not in (401, 402, 403, 404), "the client's own key and route were right"
    assert "'small'" in error.message
    assert error.cure


def test_the_provider_s_words_about_our_key_are_not_passed_on() -> None:
    error = of_status(401, None, "Incorrect API key provided: sk-12345", None).error("small")
    assert "sk-12345" not in str(error)


@pytest.mark.parametrize("code", ["sk-12345", "a b", "x" * 65, "a\r\nb", "\u017fk", "", "1a"])
def test_a_code_that_is_no_code_reaches_no_metric_and_no_receipt(code: str) -> None:
    assert of_status(400, code, "no", None).code == "upstream_refused"


def test_retry_after_is_passed_on() -> None:
    error = of_status(429, None, None, "7").error("small")
    assert isinstance(error, RequestError)
    assert error.retry_after == "7"


@pytest.mark.parametrize(("status", "again"), [(400, False), (422, False), (500, True)])
def test_nobody_is_told_to_repeat_what_was_wrong(status: int, again: bool) -> None:
    error = of_status(status, "invalid_type", "max_tokens is no number", None).error("small")
    assert ("retry later" in error.cure) is again


def test_a_timeout_may_be_tried_later() -> None:
    error = of_fault(UpstreamFault("upstream_total_timeout", "too late")).error("small")
    assert "retry later" in error.cure
