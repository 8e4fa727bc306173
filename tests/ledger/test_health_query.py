"""How a release does: counted by whose failure it was, by purpose, release, route or journey."""

from __future__ import annotations

import time

import pytest

from tests.ledger.samples import make_receipt
from tidegate.base import Usage, UsageError
from tidegate.ledger import Receipt, health
from tidegate.ledger.partitions import Connection, Partitions
from tidegate.ledger.store import Batch, ReceiptStore, make_entry

STABLE, CANARY = "sha256:stable", "sha256:canary"


def store(connection: Connection, *receipts: Receipt) -> None:
    entries = [make_entry(one, b"", b"") for one in receipts]
    ReceiptStore(connection, Partitions()).store(Batch(entries, {}))


def failed(outcome: str, status: int, code: str, **more: object) -> Receipt:
    return make_receipt(outcome=outcome, status=status, code=code, release=CANARY, **more)


def test_each_failure_counts_in_its_class(connection: Connection) -> None:
    store(
        connection,
        *(make_receipt(release=CANARY, total=100.0, first_token=20.0) for _ in range(10)),
        *(make_receipt(release=STABLE) for _ in range(90)),
        failed("failed", 500, "internal_error"),
        failed("failed", 502, "upstream_error", cost=None, usage=None),
        failed("upstream_cut", 200, "upstream_cut"),
        failed("refused", 401, "key_invalid"),
        failed("refused", 429, "limit_tokens"),
        failed("client_gone", 499, "client_gone"),
    )
    found = health(connection, 3600, release=CANARY)
    assert (found.requests, found.served) == (16, 10)
    assert found.errors == {"ours": 1, "provider": 2, "client": 1, "limited": 1, "gone": 1}
    assert (found.judged, found.error_rate) == (13, pytest.approx(3 / 13))
    assert found.total.p50 is not None
    assert found.first_token.p50 == pytest.approx(20.0, rel=0.01)
    assert found.cost_unknown == 1
    assert found.prompt_tokens == 40 * 15
    stable = health(connection, 3600, release=STABLE)
    assert (stable.requests, stable.error_rate) == (90, 0.0)


def test_purposes_variants_routes_and_journeys_are_told_apart(connection: Connection) -> None:
    store(
        connection,
        make_receipt(release=CANARY, cost=1.0),
        make_receipt(release=CANARY, purpose="shadow", cost=7.0),
        make_receipt(release=CANARY, variant="b"),
        make_receipt(release=CANARY, route="other", journey="get-plan"),
        make_receipt(release=CANARY, usage=Usage(prompt=1, completion=1, estimated=True)),
    )
    assert health(connection, 60, release=CANARY).requests == 4, "users only"
    shadow = health(connection, 60, release=CANARY, purpose="shadow")
    assert (shadow.requests, shadow.cost) == (1, 7.0)
    assert health(connection, 60, variant="b").requests == 1
    assert health(connection, 60, route="other").requests == 1
    assert health(connection, 60, journey="get-plan", release=CANARY).requests == 1
    assert health(connection, 60, journey="get-plan", release=STABLE).requests == 0
    assert health(connection, 60, release=CANARY).estimated == 1


def test_with_nothing_to_judge_by_there_is_no_rate(connection: Connection) -> None:
    found = health(connection, 60, release="sha256:never")
    assert (found.requests, found.error_rate, found.total.p50) == (0, None, None)


@pytest.mark.parametrize("window", [0, -1, 1e12])
def test_a_window_that_is_none_is_refused(connection: Connection, window: float) -> None:
    with pytest.raises(UsageError) as raised:
        health(connection, window)
    assert raised.value.code == "window_invalid"


def test_what_roll_ups_do_not_tell_is_said(connection: Connection) -> None:
    with pytest.raises(UsageError) as raised:
        health(connection, 60, journey="a", variant="b")
    assert raised.value.code == "filter_invalid"


def test_the_window_ends_now(connection: Connection) -> None:
    now = time.time()
    store(connection, make_receipt(at=now - 7200))
    assert health(connection, 600, now=now).requests == 0
    assert health(connection, 3 * 3600, now=now).requests == 1
