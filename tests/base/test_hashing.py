"""Equal values give equal bytes, on every machine."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tidegate.base.hashing import canonical_json, sha256, sha256_file

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text(max_size=6)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.binary(max_size=64))
def test_sha256(data: bytes) -> None:
    assert sha256(data) == hashlib.sha256(data).hexdigest()


def test_text_is_hashed_as_utf_8() -> None:
    assert sha256("é") == sha256("é".encode())


def test_a_file_is_hashed_in_chunks(tmp_path: Path) -> None:
    data = b"x" * ((1 << 20) * 2 + 7)
    path = tmp_path / "file"
    path.write_bytes(data)
    assert sha256_file(path) == (sha256(data), len(data))
    path.write_bytes(b"")
    assert sha256_file(path) == (sha256(b""), 0)


@given(value=JSON, order=st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter_and_nothing_is_lost(
    value: object, order: object
) -> None:
    def shuffled(one: object) -> object:
        if isinstance(one, dict):
            names = list(one)
            order.shuffle(names)  # type: ignore[attr-defined]
            return {name: shuffled(one[name]) for name in names}
        return [shuffled(item) for item in one] if isinstance(one, list) else one

    data = canonical_json(value)
    assert canonical_json(shuffled(value)) == data
    assert json.loads(data) == value
