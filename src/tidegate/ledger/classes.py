"""Whose failure a request was; pure, as a table over the codes that a receipt may have.

A canary is judged by these: what clients did wrong, what limits refused and who left say nothing
about a release.
"""

from __future__ import annotations

from typing import Literal, get_args

from tidegate.ledger.receipts import Outcome, Receipt

ErrorClass = Literal["ours", "provider", "client", "limited", "gone"]
"""``ours``: the gateway or its stores. ``provider``: the model or its API. ``client``: the request
itself. ``limited``: refused by a limit, a full queue or an operator's switch. ``gone``: the client
left."""

ERROR_CLASSES: tuple[ErrorClass, ...] = get_args(ErrorClass)

BY_CODE: dict[str, ErrorClass] = {
    **dict.fromkeys(
        (
            "internal_error",
            "gateway_draining",
            "connections_too_many",
            "idempotency_unavailable",
            "keys_unavailable",
            "limits_unavailable",
            "price_unknown",
        ),
        "ours",
    ),
    **dict.fromkeys(
        (
            "limit_requests",
            "limit_tokens",
            "limit_dollars",
            "limit_too_small",
            "overloaded",
            "queue_full",
            "model_killed",
            "prompt_killed",
            "route_killed",
            "tenant_killed",
            "tool_killed",
        ),
        "limited",
    ),
    **dict.fromkeys(
        (
            "output_invalid",
            "upstream_answer_timeout",
            "upstream_breaker_open",
            "upstream_connect_timeout",
            "upstream_cut",
            "upstream_error",
            "upstream_first_token_timeout",
            "upstream_idle_timeout",
            "upstream_key_rejected",
            "upstream_model_missing",
            "upstream_protocol",
            "upstream_rate_limited",
            "upstream_rate_timeout",
            "upstream_too_large",
            "upstream_total_timeout",
            "upstream_unreachable",
        ),
        "provider",
    ),
    **dict.fromkeys(
        (
            "body_too_large",
            "choices_unguarded",
            "content_policy_violation",
            "content_unsupported",
            "context_length_exceeded",
            "embeddings_unsupported",
            "encoding_unsupported",
            "idempotency_answer_not_kept",
            "idempotency_in_flight",
            "idempotency_key_invalid",
            "idempotency_key_reused",
            "input_invalid",
            "input_missing",
            "json_malformed",
            "key_expired",
            "key_invalid",
            "key_missing",
            "key_revoked",
            "messages_missing",
            "method_not_allowed",
            "parameter_unsupported",
            "path_unknown",
            "priority_unknown",
            "prompt_too_long",
            "request_invalid",
            "route_kind_mismatch",
            "route_unknown",
            "template_failed",
            "upstream_refused",
        ),
        "client",
    ),
    "client_gone": "gone",
}


def error_class(outcome: Outcome, status: int, code: str | None) -> ErrorClass | None:
    """Whose failure a request with this ending was; None when it was served.

    A code that is not in the table is a provider's own: with a status of 4xx it speaks of the
    request, else of the provider."""
    if outcome == "served":
        return None
    if outcome == "client_gone":
        return "gone"
    found = BY_CODE.get(code or "")
    if found is not None:
        return found
    if outcome == "upstream_cut":
        return "provider"
    return "client" if 400 <= status < 500 else "provider"


def class_of(receipt: Receipt) -> ErrorClass | None:
    return error_class(receipt.outcome, receipt.status, receipt.code)
