"""The fields that every provider gets: messages, tools, schema, caps."""

from __future__ import annotations

import msgspec
import pytest

from tests.gateway.calls import CHAT, chat_request, plans_of
from tests.gateway.loops import run
from tidegate.base.errors import RequestError
from tidegate.gateway.plan import Plan
from tidegate.gateway.ports import Ask
from tidegate.gateway.render import render
from tidegate.gateway.render.run import check_prompt

# The vocabulary's package reads its data in a way that newer Pythons advise against.
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated. Use files:DeprecationWarning")
PLANS = plans_of()
INPUTS = {"inputs": {"goal": "run"}}


def rendered(plan: Plan, **body: object) -> Ask:
    async def main() -> Ask:
        return (await render(chat_request(plan, **body))).ask

    return run(main())


def fields(plan: Plan, **body: object) -> dict[str, object]:
    return {n: msgspec.json.decode(v) for n, v in rendered(plan, **body).fields.items()}


def test_what_nobody_knows_passes_through_and_what_is_ours_does_not() -> None:
    found = fields(PLANS["plain"], later={"a": [1]}, seed=7, stream=True, stream_options={})
    assert found == {
        "messages": [{"role": "user", "content": "hi"}], "later": {"a": [1]}, "seed": 7,
    }  # fmt: skip


def test_stream_and_usage_are_noted() -> None:
    ask = rendered(PLANS["plain"], stream=True, stream_options={"include_usage": True})
    assert (ask.stream, ask.shows_usage) == (True, True)
    ask = rendered(PLANS["plain"])
    assert (ask.stream, ask.shows_usage) == (False, False)


@pytest.mark.parametrize("given", [[], [{"role": "user", "content": "more"}]])
def test_the_prompt_comes_first(given: list[object]) -> None:
    found = fields(PLANS["plan"], messages=given, tidegate=INPUTS)
    first = {"role": "user", "content": "Make a plan for run at level beginner."}
    assert found["messages"] == [first, *given]


@pytest.mark.parametrize(
    ("plan", "body", "code"),
    [
        ("plain", {"messages": []}, "messages_missing"),
        ("shaped", {"n": 2}, "choices_unguarded"),
        ("plain", {"tidegate": INPUTS}, "input_invalid"),
        ("plan", {}, "input_missing"),
        ("capped", {"messages": [{"role": "user", "content": "word " * 80}]}, "prompt_too_long"),
        ("capped", {"messages": [{"role": "user", "content": [
            {"type": "text", "text": "word " * 80}]}]}, "prompt_too_long"),
    ],
)  # fmt: skip
def test_refusals(plan: str, body: dict[str, object], code: str) -> None:
    with pytest.raises(RequestError) as caught:
        rendered(PLANS[plan], **body)
    assert (caught.value.status, caught.value.code) == (400, code)


LONG = b'{"role":"user","content":"%b"' % (b"a " * 100)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (LONG + b',"content":"short"}', "request_invalid"),
        (LONG + b',"\\u0063ontent":"short"}', "request_invalid"),
        (b'{"role":"user","content":[{"type":"text","text":"%b","text":""}]}' % (b"a " * 100),
         "request_invalid"),
        (LONG + b',"x":1e999}', "prompt_too_long"),
        (LONG + b',"x":%b}' % (b"9" * 5000), "prompt_too_long"),
    ],
    ids=["twice", "twice by an escape", "a part twice", "a number too large", "a long number"],
)  # fmt: skip
def test_no_way_of_writing_a_prompt_gets_it_past_its_cap(message: bytes, code: str) -> None:
    async def main() -> None:
        request = chat_request(PLANS["capped"])
        request.ask.fields["messages"] = b"[" + message + b"]"
        await render(request)

    with pytest.raises(RequestError) as caught:
        run(main())
    assert (caught.value.status, caught.value.code) == (400, code)


@pytest.mark.parametrize("value", [b"9" * 400, b"-" + b"9" * 400, b"1", b"null"])
def test_any_length_that_is_asked_for_can_be_compared(value: bytes) -> None:
    assert CHAT.asked_output({"max_tokens": value}) in (None, 1, 1 << 40)


def test_a_prompt_within_its_cap_passes() -> None:
    assert rendered(PLANS["capped"], messages=[{"role": "user", "content": "word " * 30}])


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({}, {"max_tokens": 16}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 500}, {"max_tokens": 16}),
        ({"max_completion_tokens": 500}, {"max_completion_tokens": 16}),
        ({"max_completion_tokens": None}, {"max_tokens": 16}),
        ({"max_tokens": 500, "max_completion_tokens": 5},
         {"max_tokens": 16, "max_completion_tokens": 5}),
        ({"max_tokens": -1}, {"max_tokens": 16}),
        ({"n_predict": 500}, {"max_tokens": 16}),
    ],
)  # fmt: skip
def test_the_output_is_capped(asked: dict[str, object], sent: dict[str, object]) -> None:
    found = fields(PLANS["capped"], **asked)
    del found["messages"]
    assert found == sent


def test_a_schema_is_asked_for_unless_the_client_says_otherwise() -> None:
    assert fields(PLANS["shaped"])["response_format"]["type"] == "json_schema"  # type: ignore[index]
    own = {"type": "json_object"}
    assert fields(PLANS["shaped"], response_format=own)["response_format"] == own


def test_a_prompt_nested_deeper_than_it_can_be_counted_is_refused() -> None:
    async def main() -> RequestError:
        ask = chat_request(plans_of()["capped"]).ask
        fields = {"messages": b"[" * 5000 + b"]" * 5000}
        with pytest.raises(RequestError) as refusal:
            await check_prompt(ask, fields, 50, None)
        return refusal.value

    refusal = run(main())
    assert (refusal.status, refusal.code, refusal.param) == (400, "request_invalid", "messages")
