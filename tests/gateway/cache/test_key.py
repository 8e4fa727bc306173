"""Two calls share a key only when nothing that may change the answer differs."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.gateway.calls import CHAT
from tidegate.gateway.cache.key import cache_key as key_of
from tidegate.gateway.cache.key import why_not

INERT = CHAT.inert

PRINT = b"\x01" * 32
VALUES = st.one_of(st.binary(max_size=12), st.sampled_from([b"1", b'"a"', b"null", b"1:a=1:"]))
NAMES = st.one_of(st.text(max_size=8), st.sampled_from(["a", "a=1:V", "3,1:abc", "messages"]))
FIELDS = st.dictionaries(NAMES.filter(lambda name: name not in INERT), VALUES, max_size=5)
TENANTS = st.one_of(st.none(), st.text(min_size=1, max_size=6))
FORMS = st.sampled_from(["whole", "stream", "stream+usage"])


def cache_key(tenant: str | None, print_: bytes, fields: dict[str, bytes], form: str) -> bytes:
    return key_of(tenant, print_, fields, form, INERT)


@given(tenant=TENANTS, fields=FIELDS, form=FORMS, name=NAMES, value=VALUES)
def test_any_new_or_changed_field_changes_the_key(
    tenant: str | None, fields: dict[str, bytes], form: str, name: str, value: bytes
) -> None:
    changed = {**fields, name: value}
    same = cache_key(tenant, PRINT, fields, form) == cache_key(tenant, PRINT, changed, form)
    assert same == (name in INERT or fields.get(name) == value)


@given(
    one=st.tuples(TENANTS, FIELDS, FORMS),
    other=st.tuples(TENANTS, FIELDS, FORMS),
)
@example(one=(None, {"a": b"V", "b": b"W"}, "whole"), other=(None, {"a=1:Vb": b"W"}, "whole"))
@example(one=("ab", {}, "whole"), other=("a", {"b": b""}, "whole"))
@example(one=(None, {"1,1:ab": b""}, "whole"), other=(None, {"a": b"b"}, "whole"))
def test_no_two_different_calls_collide(
    one: tuple[str | None, dict[str, bytes], str], other: tuple[str | None, dict[str, bytes], str]
) -> None:
    keys = [cache_key(tenant, PRINT, fields, form) for tenant, fields, form in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


@given(fields=FIELDS, order=st.randoms(use_true_random=False))
def test_the_order_of_fields_does_not_matter(fields: dict[str, bytes], order: object) -> None:
    names = list(fields)
    order.shuffle(names)  # type: ignore[attr-defined]
    shuffled = {name: fields[name] for name in names}
    assert cache_key("t", PRINT, fields, "whole") == cache_key("t", PRINT, shuffled, "whole")


@pytest.mark.parametrize("name", sorted(INERT))
def test_an_inert_field_changes_nothing(name: str) -> None:
    assert cache_key("t", PRINT, {name: b"1"}, "whole") == cache_key("t", PRINT, {}, "whole")


def test_another_release_has_other_keys() -> None:
    assert cache_key("t", PRINT, {}, "whole") != cache_key("t", b"\x02" * 32, {}, "whole")
    assert len(cache_key("t", PRINT, {}, "whole")) == 32


@pytest.mark.parametrize(
    ("temperature", "control", "cached"),
    [
        (None, None, True),
        (0, None, True),
        (0.0, "max-age=0", True),
        (0.1, None, False),
        (0, "no-store", False),
        (0, "No-Cache", False),
        (0, "max-age=5, NO-STORE", False),
    ],
)
def test_who_asks_for_a_fresh_answer_gets_one(
    temperature: float | None, control: str | None, cached: bool
) -> None:
    reason = why_not(temperature, control)
    assert (reason is None) == cached
    if reason is not None:
        assert "fresh answer" in reason.reason
