"""A flagd document from the store: sound and answering for every user, or refused as a whole."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.budget import fuzz
from tests.fuzz.inputs import broken_bytes, broken_json
from tidegate.base.errors import UsageError
from tidegate.switches import flags

TARGETING = {
    "if": [
        {"in": ["@a.com", {"var": "email"}]},
        "y",
        {"fractional": [["x", 10], ["y", 90]]},
    ]
}
DOCUMENT = {
    "flags": {
        "a": {
            "state": "ENABLED",
            "variants": {"x": "1", "y": "2"},
            "defaultVariant": "x",
            "targeting": TARGETING,
        },
        "b": {"state": "DISABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"},
    },
    "$evaluators": {"e": {"==": [{"var": "tenant"}, "acme"]}},
}
TOKENS = [
    b'"', b"{", b"}", b"[" * 3000, b"null", b"1e999", b"\\ud800", b'{"$ref":"e"}',
    b'{"sem_ver":["1","^",2]}', b'{"!":' * 200,
]  # fmt: skip


@fuzz(150)
@given(
    st.one_of(
        broken_json([DOCUMENT]).map(json.dumps),
        broken_bytes([json.dumps(DOCUMENT).encode()], TOKENS).map(lambda b: b.decode("latin-1")),
    )
)
def test_any_document_answers_or_is_refused(body: str) -> None:
    try:
        sound = flags.check(body)
    except UsageError as error:
        assert error.code == "flags_invalid"
        return
    for name in sound.names():
        for user in (None, "", "u\x00", "\ud800"):
            resolution = sound.resolve(name, user, {"tenant": None, "x": [1]})
            assert resolution.variant is None or isinstance(resolution.variant, str)
