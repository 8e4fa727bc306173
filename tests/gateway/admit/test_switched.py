"""One board for each snapshot: none while nothing is switched; the tightest cap holds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gateway.calls import plans_of
from tidegate.base.errors import RequestError
from tidegate.gateway.admit.switched import switchboard
from tidegate.gateway.render.rules import output_cap, prompt_cap
from tidegate.gateway.values import Switched
from tidegate.switches import Cap, Kill, SwitchSnapshot, Weight

TOKENS = st.none() | st.integers(1, 9)
SURGE = st.sampled_from([None, "on", "off"])
PLANS = plans_of()


def admitted(route: str = "plain", **switched: Any) -> Switched:
    """What a request for ``route`` finds switched."""

    board = switchboard(SwitchSnapshot(version=3, **switched))
    assert board is not None
    return board.admit(PLANS[route], "acme")


def test_without_kills_and_caps_there_is_no_board() -> None:
    weights = (Weight(release="sha256:1", weight=100),)
    assert switchboard(SwitchSnapshot(version=3, traffic=weights)) is None


@settings(max_examples=60, deadline=None)
@given(TOKENS, TOKENS, SURGE, SURGE, TOKENS, TOKENS)
def test_the_tightest_of_the_route_s_and_of_all_holds(
    own: int | None, every: int | None, mine: Any, theirs: Any, over: int | None, all_: int | None
) -> None:
    found = admitted(
        caps=(
            Cap(output_tokens=every, prompt_tokens=own, surge=theirs),
            Cap(route="plain", output_tokens=own, prompt_tokens=every, surge=mine),
            Cap(route="rescued", output_tokens=1, prompt_tokens=1),
        ),
        kills=tuple(
            Kill(kind="prompts", name=name, tokens=n)
            for name, n in (("plain", over), ("", all_), ("rescued", 0))
            if n is not None
        ),
    )
    least = min((n for n in (own, every) if n is not None), default=None)
    assert (found.output_tokens, found.prompt_tokens) == (least, least)
    assert found.surge == (mine or theirs)
    assert found.killed_over == min((n for n in (over, all_) if n is not None), default=None)


@settings(max_examples=100, deadline=None)
@given(TOKENS, TOKENS, TOKENS)
def test_the_tightest_cap_of_a_prompt_holds(
    spec: int | None, switched: int | None, killed: int | None
) -> None:
    found = prompt_cap(spec, switched, killed)
    given = {"spec": spec, "switch": switched, "kill": killed}
    least = min((n for n in given.values() if n is not None), default=None)
    assert (found and found.tokens) == least
    assert found is None or given[found.by] == least
    assert output_cap(spec, switched).tokens == min(
        (n for n in (spec, switched) if n is not None), default=None
    )


@pytest.mark.parametrize(
    ("kills", "route", "refusal"),
    [
        ([("route", "plain")], "plain", (503, "route_killed")),
        ([("model", "small")], "plain", (503, "model_killed")),
        ([("model", "small"), ("model", "spare")], "rescued", (503, "model_killed")),
        ([("tenant", "acme")], "rescued", (403, "tenant_killed")),
        ([("tenant", "acme"), ("route", "plain")], "plain", (403, "tenant_killed")),
    ],
)
def test_what_is_killed_is_refused(
    kills: list[tuple[Any, str]], route: str, refusal: tuple[int, str]
) -> None:
    with pytest.raises(RequestError) as raised:
        admitted(route, kills=tuple(Kill(kind=kind, name=name) for kind, name in kills))
    assert (raised.value.status, raised.value.code) == refusal


def test_other_names_are_let_in() -> None:
    kills = (Kill(kind="route", name="other"), Kill(kind="model", name="small"))
    kills += (Kill(kind="tenant", name="plain"), Kill(kind="tool", name="acme"))
    assert admitted("rescued", kills=kills).models == {"small"}
