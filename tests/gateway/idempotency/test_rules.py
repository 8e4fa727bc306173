"""What a key is, what tells bodies apart, what is kept."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.gateway.idempotency.rules import (
    Malformed,
    fingerprint,
    keeps_refusal,
    read_key,
    store_key,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
BODIES = st.dictionaries(st.text(max_size=8), JSON, max_size=5)


def fields(body: dict[str, object]) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(json.dumps(body), type=dict[str, msgspec.Raw])


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ('"8e03978e"', "8e03978e"),
        ("  order 17/retry  ", "order 17/retry"),
        ("x" * 255, "x" * 255),
    ],
)
def test_a_key_with_or_without_quotes(header: str, key: str) -> None:
    assert read_key(header) == key


@pytest.mark.parametrize(
    "header", ["", '""', " ", "x" * 256, "a,b", 'a"b', "a\\b", "caf\xe9", "a\tb", "\x7f"]
)
def test_what_is_no_key(header: str) -> None:
    assert isinstance(read_key(header), Malformed)


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=300))
def test_any_header_is_a_key_or_none(header: str) -> None:
    key = read_key(header)
    assert isinstance(key, Malformed) or 1 <= len(key) <= 255


@given(BODIES, BODIES, st.randoms())
def test_bodies_are_told_apart_by_what_they_say_not_by_the_order_of_their_fields(
    one: dict[str, object], other: dict[str, object], random: object
) -> None:
    shuffled = dict(sorted(one.items(), reverse=True))
    assert fingerprint(fields(one)) == fingerprint(fields(shuffled))
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    if not same:
        assert fingerprint(fields(one)) != fingerprint(fields(other))


@given(st.tuples(st.text(), st.text(), st.text()), st.tuples(st.text(), st.text(), st.text()))
def test_scopes_and_routes_share_no_key(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    assert (store_key(*one) == store_key(*other)) == (one == other)


@given(st.integers(400, 599), st.booleans())
def test_only_a_final_refusal_by_a_model_is_kept(status: int, asked: bool) -> None:
    keeping = keeps_refusal(status, asked)
    assert keeping.reason
    if keeping.kept:
        assert asked
        assert status < 500
        assert status != 429
