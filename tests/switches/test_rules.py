"""A token is let in only with the whole secret of a key that is in force."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.switches.keys import make_token
from tidegate.switches.rules import TOKEN_SHAPE, KeyRecord, KeyTable, token_hash

KEY_ID, TOKEN = make_token()


def _table(**changes: object) -> KeyTable:
    fields = {"id": KEY_ID, "name": "web", "hash": token_hash(TOKEN), **changes}
    return KeyTable([KeyRecord(**fields)])


def test_the_token_is_its_key() -> None:
    found = _table(tenant="acme").find(TOKEN, now=0.0)
    assert isinstance(found, KeyRecord)
    assert (found.id, found.tenant) == (KEY_ID, "acme")


@pytest.mark.parametrize(
    ("changes", "token", "refusal"),
    [
        ({}, "", "key_missing"),
        ({}, "tg-", "key_invalid"),
        ({}, TOKEN[:-1], "key_invalid"),
        ({}, TOKEN + "A", "key_invalid"),
        ({}, "tg-000000000000" + TOKEN[15:], "key_invalid"),
        ({}, "\ud800", "key_invalid"),
        ({"revoked": True}, TOKEN, "key_revoked"),
        ({"revoked": True}, TOKEN[:-1] + "!", "key_invalid"),
        ({"expires_at": 9.0}, TOKEN, "key_expired"),
        ({"expires_at": 10.0}, TOKEN, "key_expired"),
        ({"expires_at": 9.0, "revoked": True}, TOKEN, "key_revoked"),
    ],
    ids=(  # the token is drawn, and a test's name must be the same in every process
        *("none", "head alone", "shorter", "longer", "another id", "not encodable", "revoked"),
        *("revoked and wrong", "expired", "just expired", "expired and revoked"),
    ),
)
def test_a_refusal_has_its_word(changes: dict[str, object], token: str, refusal: str) -> None:
    assert _table(**changes).find(token, now=10.0) == refusal


def test_a_key_is_good_until_its_end() -> None:
    assert isinstance(_table(expires_at=10.1).find(TOKEN, now=10.0), KeyRecord)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(TOKEN) - 1), st.characters(codec="utf-8"))
def test_no_token_with_one_character_changed_is_let_in(at: int, character: str) -> None:
    changed = TOKEN[:at] + character + TOKEN[at + 1 :]
    found = _table().find(changed, now=0.0)
    assert isinstance(found, KeyRecord) == (changed == TOKEN)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=80))
def test_any_text_gets_an_answer(text: str) -> None:
    assert _table().find(text, now=0.0) in ("key_missing", "key_invalid")


def test_tokens_have_the_documented_shape_and_differ() -> None:
    tokens = {make_token()[1] for _ in range(200)}
    assert len(tokens) == 200
    assert all(TOKEN_SHAPE.fullmatch(token) for token in tokens)
