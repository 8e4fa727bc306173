"""Flags: what is refused before it is in force, and that users fall where flagd puts them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.base import flag_rules
from tidegate.base.errors import ReleaseError, UsageError
from tidegate.switches.flags import HASH_FORM, VECTORS, Flags, check, hash_form, require_form

FLAG: dict[str, Any] = {
    "state": "ENABLED",
    "variants": {"a": "a", "b": "b"},
    "defaultVariant": "a",
}


def document(**changes: Any) -> str:
    return json.dumps({"flags": {"f": {**FLAG, **changes}}})


def test_users_are_hashed_as_this_release_pins_it() -> None:
    assert hash_form() == HASH_FORM == flag_rules.HASH_FORM
    require_form(HASH_FORM)
    with pytest.raises(ReleaseError, match="would move users") as raised:
        require_form("raw")
    assert raised.value.code == "flag_hash_changed"


def test_the_vectors_are_those_of_an_evaluation() -> None:
    flag = {
        "state": "ENABLED",
        "variants": {str(n): str(n) for n in range(100)},
        "targeting": {"fractional": [[str(n), 1] for n in range(100)]},
    }
    flags = Flags(json.dumps({"flags": {"answer-model": flag}}))
    found = {user: flags.resolve("answer-model", user, {}).variant for user in VECTORS}
    assert found == {user: str(bucket) for user, bucket in VECTORS.items()}


@pytest.mark.parametrize(
    ("changes", "reason", "variant"),
    [
        ({}, "STATIC", "a"),
        ({"targeting": {"if": [{"==": [{"var": "tenant"}, "x"]}, "b"]}}, "TARGETING_MATCH", "b"),
        ({"state": "DISABLED"}, "DISABLED", None),
        ({"targeting": {"fractional": [["a", 0], ["b", 1]]}}, "TARGETING_MATCH", "b"),
    ],
)
def test_what_a_flag_says(changes: dict[str, Any], reason: str, variant: str | None) -> None:
    found = check(document(**changes)).resolve("f", "user-1", {"tenant": "x"})
    assert (found.reason, found.variant) == (reason, variant)


def test_a_flag_that_is_not_there_is_an_error_and_no_variant() -> None:
    found = check(document()).resolve("g", "user-1", {})
    assert (found.variant, found.reason) == (None, "ERROR")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{", "line 1: not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "no object 'flags'"),
        ('{"flags": {}, "flags": {}}', "stands twice"),
        ('{"flags": {"f": NaN}}', "NaN is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        (" " * (flag_rules.LARGEST + 1), "larger than 1 MiB"),
        (document(state="ON"), "not ENABLED or DISABLED"),
        (document(variants={}), "no variants"),
        (document(variants={"a": 1, "b": "x"}), "several types"),
        (document(variants={"a": "a", "b\r\nx-evil: 1": "b"}), "the name of variant"),
        (document(defaultVariant="c"), "none of its variants"),
        (document(targeting={"ifs": []}), "no operator 'ifs'"),
        (document(targeting={"fractional": [["a", 1.5], ["b", 1]]}), "not a whole number"),
        (document(targeting={"fractional": [["c", 50], ["b", 50]]}), "none of its variants"),
        (document(targeting={"fractional": [["a", 0], ["b", 0]]}), "add up to 0"),
        (document(targeting={"$ref": "nobody"}), "no evaluator 'nobody'"),
        (document(default="a"), "no key of a flag"),
    ],
)
def test_a_broken_document_is_refused_with_what_is_wrong(body: str, words: str) -> None:
    with pytest.raises(UsageError) as raised:
        check(body)
    assert raised.value.code == "flags_invalid"
    assert words in str(raised.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(JSON)
def test_whatever_the_targeting_is_it_is_refused_or_answers(targeting: object) -> None:
    rules = (targeting, {"if": targeting}, {"fractional": targeting}, {"==": [targeting, 1]})
    for rule in rules:
        try:
            flags = Flags(document(targeting=rule))
        except UsageError:
            continue
        assert flags.resolve("f", "user-1", {"tenant": "x"}).variant in ("a", "b", None)


@given(st.text() | st.binary().map(lambda data: data.decode(errors="replace")))
def test_any_text_is_read_or_refused(text: str) -> None:
    document, problems = flag_rules.read(text)
    assert document is not None or problems
