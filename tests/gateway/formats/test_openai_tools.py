"""A killed tool is offered to no model, whatever the request looks like."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.base.errors import RequestError
from tidegate.gateway.formats.openai_tools import drop_tools

KILLED = frozenset(("bad",))


def function(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {}}}


def choose(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [choose(name) for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def dropped(**request: Any) -> dict[str, Any]:
    fields = {name: msgspec.json.encode(value) for name, value in request.items()}
    drop_tools(fields, KILLED)
    return {name: msgspec.json.decode(value) for name, value in fields.items()}


BOTH = [function("bad"), function("good")]


@pytest.mark.parametrize(
    ("request_", "left"),
    [
        ({"tools": [function("good")]}, {"tools": [function("good")]}),
        ({"tools": BOTH}, {"tools": [function("good")]}),
        (
            {"tools": BOTH, "tool_choice": "required"},
            {"tools": [function("good")], "tool_choice": "required"},
        ),
        ({"tools": [function("bad")], "tool_choice": "auto", "parallel_tool_calls": True}, {}),
        (
            {"tools": BOTH, "tool_choice": allowed("auto", "bad", "good")},
            {"tools": [function("good")], "tool_choice": allowed("auto", "good")},
        ),
        (
            {"tools": BOTH, "tool_choice": allowed("auto", "bad")},
            {"tools": [function("good")], "tool_choice": "none"},
        ),
        ({"functions": [{"name": "bad"}], "function_call": "auto"}, {}),
        ({"tools": [{"type": "custom", "custom": {"name": "bad"}}]}, {}),
    ],
)
def test_what_is_left_of_a_request(request_: dict[str, Any], left: dict[str, Any]) -> None:
    assert dropped(**request_) == left


@pytest.mark.parametrize(
    "request_",
    [
        {"tools": BOTH, "tool_choice": choose("bad")},
        {"tools": [function("bad")], "tool_choice": "required"},
        {"tools": BOTH, "tool_choice": allowed("required", "bad")},
        {"functions": [{"name": "bad"}], "function_call": {"name": "bad"}},
    ],
)
def test_who_insists_is_refused(request_: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as refusal:
        dropped(**request_)
    assert (refusal.value.status, refusal.value.code) == (503, "tool_killed")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["bad", "good", "required"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "function", "type", "custom", "tools", "allowed_tools", "mode"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(JSON, JSON, JSON)
def test_any_json_is_answered_and_no_killed_name_is_offered(
    tools: Any, choice: Any, functions: Any
) -> None:
    try:
        left = dropped(tools=tools, tool_choice=choice, functions=functions)
    except RequestError as refusal:
        if refusal.code != "tool_killed":
            raise
        return
    for offered in ("tools", "functions"):
        names = left.get(offered) if isinstance(left.get(offered), list) else []
        for tool in names or []:
            if isinstance(tool, dict) and isinstance(tool.get("function"), dict):
                assert tool["function"].get("name") != "bad"


@pytest.mark.parametrize("field", ["tools", "tool_choice", "functions", "function_call"])
@pytest.mark.parametrize("value", [b"1e999", b"[" * 100_000 + b"]" * 100_000])
def test_what_cannot_be_read_is_the_client_s_mistake(field: str, value: bytes) -> None:
    with pytest.raises(RequestError) as refusal:
        drop_tools({field: value}, frozenset(("bad",)))
    assert (refusal.value.status, refusal.value.code) == (400, "request_invalid")
    assert refusal.value.param == field
