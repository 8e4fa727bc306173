"""Whose failure a request was: every code that a receipt may have has a class."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.ledger.samples import make_receipt
from tidegate.ledger import BY_CODE, ERROR_CLASSES, class_of, error_class
from tidegate.ledger.receipts import ATTEMPT_CODES

ERRORS = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| (\d{3})[^|]*\|", re.MULTILINE)
OTHER_DOORS = (
    frozenset(("operator_token_missing", "operator_token_wrong", "span_backlog_full"))
    | {"span_spool_unwritable", "otlp_encoding", "otlp_malformed", "otlp_media_type"}
    | {"otlp_too_large", "pool_overloaded", "dimensions_unsupported", "engine_failed"}
    | {"invalid_api_key", "invalid_input", "invalid_request", "model_not_found"}
)
"""Answered by the operator's door and by model pools: no receipt has them as its own code."""


def documented() -> set[str]:
    return {code for code, _ in ROW.findall(ERRORS)} - OTHER_DOORS


def test_the_page_of_errors_lists_codes_with_their_status() -> None:
    assert len(documented()) > 30


@pytest.mark.parametrize("code", sorted(documented()))
def test_every_documented_code_of_a_request_has_a_class(code: str) -> None:
    assert BY_CODE[code] in ERROR_CLASSES


@pytest.mark.parametrize("code", sorted(ATTEMPT_CODES - {"hedge_lost"}))
def test_every_code_of_an_attempt_has_one(code: str) -> None:
    assert code in BY_CODE


def test_what_was_served_or_left_is_nobodys_failure() -> None:
    assert error_class("served", 200, None) is None
    assert error_class("client_gone", 499, "client_gone") == "gone"
    assert error_class("client_gone", 200, "upstream_cut") == "gone"


@pytest.mark.parametrize(
    ("outcome", "status", "expected"),
    [("failed", 400, "client"), ("failed", 422, "client"), ("failed", 502, "provider"),
     ("upstream_cut", 200, "provider")],
)  # fmt: skip
def test_a_providers_own_code_is_told_by_its_status(
    outcome: str, status: int, expected: str
) -> None:
    receipt = make_receipt(outcome=outcome, status=status, code="a_word_of_theirs")
    assert class_of(receipt) == expected
