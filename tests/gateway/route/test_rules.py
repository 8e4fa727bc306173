"""Who is asked, in which order, and why: models that cannot do what is needed are passed over."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.calls import CHAT
from tests.gateway.releases import sample_release
from tidegate.gateway.dialects.openai_embeddings import OpenAIEmbeddings
from tidegate.gateway.ports import Ask
from tidegate.gateway.route import Chain, choose
from tidegate.gateway.route.rules import Need, among, misfit, need_of
from tidegate.release.values import Model

SMALL = sample_release("http://127.0.0.1:9/v1").models["small"]
TOOLS = [{"type": "function", "function": {"name": "search"}}]
PICTURE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 40_000}}]
EMBEDDINGS = OpenAIEmbeddings()
NOTHING = Need(0, frozenset())


class Target(NamedTuple):
    model: Model


def target(name: str, **changes: Any) -> Target:
    return Target(msgspec.structs.replace(SMALL, name=name, **changes))


def need(**fields: Any) -> Need:
    dialect = EMBEDDINGS if "input" in fields else CHAT
    return need_of(Ask(dialect, {n: msgspec.json.encode(value) for n, value in fields.items()}))


@pytest.mark.parametrize(
    ("fields", "features"),
    [
        ({}, set()),
        ({"messages": [{"role": "user", "content": "hi"}]}, set()),
        ({"tools": TOOLS}, {"tools"}),
        ({"tools": []}, set()),
        ({"tools": None}, set()),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}, {"schema"}),
        ({"response_format": {"type": "json_object"}}, set()),
        ({"response_format": None}, set()),
        ({"messages": [{"role": "user", "content": PICTURE}]}, {"images"}),
        ({"messages": [{"role": "user", "content": PICTURE}], "tools": TOOLS}, {"images", "tools"}),
    ],
)
def test_what_a_request_needs(fields: dict[str, Any], features: set[str]) -> None:
    assert need(**fields).features == features


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, 0),
        ({"max_tokens": 100}, 100),
        ({"max_completion_tokens": 100}, 100),
        ({"max_completion_tokens": 100, "max_tokens": 7}, 100),
        *(({"max_tokens": odd}, 0) for odd in (None, "many", -5, True, [7])),
        ({"max_tokens": 10**30}, 0),  # its provider says so
        ({"messages": "x" * 398}, 100),
        ({"input": "x" * 398}, 100),
        ({"messages": "x" * 398, "tools": "y" * 198, "max_tokens": 5}, 155),
    ],
)
def test_how_many_tokens(fields: dict[str, Any], tokens: int) -> None:
    assert need(**fields).tokens == tokens


def test_the_bytes_of_a_picture_are_no_tokens() -> None:
    """Else a picture would go to a model that cannot see, only because its size is not known."""
    seen = need(messages=[{"role": "user", "content": PICTURE}], max_tokens=50)
    assert seen.tokens == 50
    sees, blind = target("sees", context=8000, can=("images",)), target("blind", can=("tools",))
    assert among([sees, blind], seen).targets == [sees]


@pytest.mark.parametrize(
    ("changes", "asked", "words"),
    [
        ({}, Need(10**9, frozenset(("tools", "schema", "images"))), None),  # nothing is known
        ({"can": ()}, NOTHING, None),
        ({"can": ()}, Need(0, frozenset(("tools",))), "small has no tools"),
        ({"can": ("schema",)}, Need(0, frozenset(("tools", "images"))), "no images and no tools"),
        ({"can": ("tools", "images")}, Need(0, frozenset(("tools",))), None),
        ({"context": 100}, Need(100, frozenset()), None),
        ({"context": 100}, Need(101, frozenset()), "room for 100 tokens, about 101 are needed"),
    ],
)
def test_what_a_model_cannot_do(changes: dict[str, Any], asked: Need, words: str | None) -> None:
    found = misfit(target("small", **changes).model, asked)
    assert found is None if words is None else words in (found or "")


def test_the_order_is_that_of_the_spec_and_the_reason_names_who_was_passed_over() -> None:
    first, second, third = target("a", can=()), target("b"), target("c", context=9)
    asked = Need(5, frozenset(("tools",)))
    chain = among([first, second, third], asked)
    assert chain.targets == [second, third]
    assert chain.reason == "fixed, 1 to fall back on; a has no tools"
    assert among([first, second, third], NOTHING).targets == [first, second, third]
    assert among([first, second], NOTHING).reason == "fixed, 1 to fall back on"
    assert among([second], NOTHING).reason == "fixed"


def test_where_nobody_can_all_are_asked() -> None:
    chain = [target("a", can=()), target("b", can=("schema",))]
    assert among(chain, Need(5, frozenset(("tools",)))).targets == chain


able = st.none() | st.lists(st.sampled_from(["tools", "schema", "images"]), unique=True)
models = st.lists(st.tuples(able, st.none() | st.integers(1, 100)), min_size=1, max_size=5)
needs = st.builds(
    Need, st.integers(0, 120), st.frozensets(st.sampled_from(["tools", "schema", "images"]))
)


@given(models, needs)
def test_any_chain(made: list[tuple[list[str] | None, int | None]], asked: Need) -> None:
    chain = [
        target(f"m{at}", can=None if can is None else tuple(can), context=context)
        for at, (can, context) in enumerate(made)
    ]
    found = list(among(chain, asked).targets)
    fit = [one for one in chain if misfit(one.model, asked) is None]
    assert found == (fit or chain)


@given(st.dictionaries(st.sampled_from(["messages", "tools", "max_tokens", "response_format"]),
                       st.binary(max_size=60)))  # fmt: skip
def test_no_request_breaks_it(upstream: dict[str, bytes]) -> None:
    assert need_of(Ask(CHAT, upstream)).tokens >= 0


def test_a_single_model_is_asked_whatever_is_needed() -> None:
    only, other = target("only", can=("schema",)), target("other")
    ask = Ask(CHAT, {"tools": b'[{"type":"function"}]'})
    assert choose([only], ask) == Chain([only], "fixed")
    assert choose([only, other], ask).targets == [other]
