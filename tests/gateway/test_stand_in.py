"""What may stand in for an answer, and what must stay an error."""

from __future__ import annotations

import pytest

from tidegate.base.errors import RequestError
from tidegate.gateway.stand_in import may_stand_in
from tidegate.gateway.targets import of_fault, of_status
from tidegate.gateway.wire.upstream import FAULTS, UpstreamFault


@pytest.mark.parametrize(
    ("status", "code", "may"),
    [
        (500, None, True),
        (503, None, True),
        (429, None, True),
        (429, "insufficient_quota", True),
        (401, None, True),
        (403, None, True),
        (404, None, True),
        (400, None, False),
        (422, None, False),
        (413, None, False),
        (400, "content_policy_violation", False),
        (400, "context_length_exceeded", False),
        (400, "upstream_rate_limited", False),  # the provider's own words are no state of it
    ],
)
def test_what_a_provider_said(status: int, code: str | None, may: bool) -> None:
    assert may_stand_in(of_status(status, code, None, None).error("small")) is may


@pytest.mark.parametrize("code", sorted(FAULTS))
def test_every_fault(code: str) -> None:
    assert may_stand_in(of_fault(UpstreamFault(code, "words")).error("small"))


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (429, "limit_exceeded"),  # the gateway's own limits are no outage
        (401, "key_invalid"),
        (400, "parameter_unsupported"),
        (404, "route_unknown"),
    ],
)
def test_what_the_gateway_refuses(status: int, code: str) -> None:
    assert not may_stand_in(RequestError(status, code, "words", cure="cure"))
