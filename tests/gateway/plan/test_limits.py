"""Which limits a route has, as its plan carries them."""

from __future__ import annotations

import msgspec
import pytest

from tests.gateway.releases import sample_release
from tidegate.gateway.plan import limits_of
from tidegate.release.values import Limit
from tidegate.stores.reservations import ReservationTerms

BUDGET = Limit(name="spend", per="tenant", unit="tokens", amount=1000.0, calendar="day")


def terms_of(limit: Limit) -> ReservationTerms:
    release = sample_release("http://127.0.0.1:9/v1")
    route = next(route for route in release.routes.values() if route.kind == "chat")
    found = limits_of({limit.name: limit}, route, release.models)
    assert found is not None
    return found.terms


@pytest.mark.parametrize(
    "change",
    [
        {"amount": 999.0},
        {"calendar": None, "every": 60.0},
        {"unit": "requests"},
    ],
)
def test_releases_with_different_limits_borrow_under_different_terms(
    change: dict[str, object],
) -> None:
    assert terms_of(BUDGET) == terms_of(BUDGET)
    assert terms_of(msgspec.structs.replace(BUDGET, **change)) != terms_of(BUDGET)
