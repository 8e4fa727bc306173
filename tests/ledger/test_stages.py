"""The stages are declared once, and what shows them shows those."""

from __future__ import annotations

from tests.ledger.samples import make_receipt
from tidegate.ledger import STAGE_TABLE, STAGES
from tidegate.ledger.questions import route_picture
from tidegate.ledger.rollups import receipt_rollups


def test_names_are_unique_and_each_says_what_it_does() -> None:
    assert len(set(STAGES)) == len(STAGES)
    assert tuple(stage.name for stage in STAGE_TABLE) == STAGES
    assert all(stage.does for stage in STAGE_TABLE)
    assert {"idempotency", "limits", "queue"} <= set(STAGES), "each wait has its own name"


def test_the_profile_has_a_row_for_each_stage_in_their_order() -> None:
    receipt = make_receipt(stages=dict.fromkeys(STAGES, 1.0))
    (rollup,) = receipt_rollups([receipt]).values()
    rows = [row.stage for row in route_picture("recommend", rollup).stages]
    assert rows == [*STAGES, "other"]


def test_a_receipt_of_before_these_stages_still_adds_up() -> None:
    old = make_receipt(stages={"admit": 1.0, "call": 5.0, "gone_by_now": 2.0})
    (rollup,) = receipt_rollups([old]).values()
    assert rollup.count == 1
    assert [row.stage for row in route_picture("r", rollup).stages] == ["admit", "call", "other"]
