"""Inputs that come close: what is valid, broken in one to a few places."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

Draw = st.DrawFn

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from(
        [2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30, 0.5, 1e308, -0.0]
    ),
    st.text(max_size=12),
    st.sampled_from(
        ["", "\x00", "\ud800", "\u2028", "a\r\nx: y", "\n\ndata: [DONE]\n\n", "<|im_end|>", "]}"]
    ),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


@st.composite
def broken_bytes(draw: Draw, seeds: list[bytes], tokens: list[bytes]) -> bytes:
    """One or two of ``seeds`` behind each other, with pieces of it cut, doubled, moved or replaced
    by ``tokens`` or by any bytes."""
    data = draw(st.sampled_from(seeds))
    if draw(st.booleans()):
        data += draw(st.sampled_from(seeds))
    piece = st.one_of(st.sampled_from(tokens), st.binary(max_size=8))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 12)))
        match draw(st.integers(0, 3)):
            case 0:
                data = data[:start] + draw(piece) + data[start:]
            case 1:
                data = data[:start] + data[end:]
            case 2:
                data = data[:end] + data[start:end] + data[end:]
            case _:
                data = data[:start] + draw(piece) + data[end:]
    return data


@st.composite
def pieces_of(draw: Draw, data: bytes) -> list[bytes]:
    """``data`` in pieces, as a network may deliver it."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@st.composite
def broken_json(draw: Draw, seeds: list[Any]) -> Any:
    """One of ``seeds`` with up to four of its values replaced, taken out, doubled or renamed."""
    value = copy.deepcopy(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        places = list(_places(value))
        if not places:
            return value
        inside, at = draw(st.sampled_from(places))
        match draw(st.integers(0, 3)):
            case 0:
                del inside[at]
            case 1 if isinstance(inside, dict):
                inside[draw(st.text(max_size=6))] = inside.pop(at)
            case 2 if isinstance(inside, list):
                inside.append(copy.deepcopy(inside[at]))
            case _:
                inside[at] = draw(JSON)
    return value


def _places(value: Any) -> Any:
    """Every (container, key) below ``value``, in order."""
    keys = value if isinstance(value, dict) else range(len(value)) if _is_list(value) else ()
    for key in list(keys):
        yield value, key
        yield from _places(value[key])


def _is_list(value: Any) -> bool:
    return isinstance(value, list)
