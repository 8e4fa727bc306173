"""Of the caps in force the tightest holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tidegate.gateway.render.rules import output_cap

CAPS = st.none() | st.integers(1, 10_000)


@given(CAPS, CAPS, CAPS, st.booleans())
def test_the_tightest_cap_in_force_holds_and_says_whose_it_is(
    spec: int | None, switched: int | None, surge: int | None, surging: bool
) -> None:
    cap = output_cap(spec, switched, surge, surging)
    named = {"spec": spec, "switch": switched, "surge": surge if surging else None}
    force = [value for value in named.values() if value is not None]
    assert cap.reason
    assert cap.tokens == min(force, default=None)
    assert (cap.by is None) == (not force)
    if cap.by is not None:
        assert named[cap.by] == cap.tokens
