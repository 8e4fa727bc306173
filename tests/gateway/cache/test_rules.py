"""What follows when a leader brings nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tidegate.gateway.cache.rules import after_leader


@given(st.booleans(), st.floats(-1, 200), st.floats(0.1, 200))
def test_nobody_waits_again_without_time_for_a_call_of_its_own(
    answered: bool, left: float, total: float
) -> None:
    step = after_leader(answered, left, total)
    assert step.reason
    if step.again:
        assert not answered
        assert left > total / 2
