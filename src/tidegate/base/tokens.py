"""Token counts for what no provider has counted, by the vocabulary o200k; off the loop when long.

The count is an estimate for every model but those of that vocabulary, and is marked as one.
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

_INLINE = 8_000
"""Characters counted on the loop: about half a millisecond."""

_PIECE = 50_000
"""Characters given to the encoder at once: it refuses a million, and other threads wait for it."""


@cache
def _encoding() -> Any:
    import bpe_openai

    return bpe_openai.get_encoding("o200k_base")


def count_now(text: str) -> int:
    """Tokens of ``text``; special tokens in it count as plain text. Text that is longer than a
    piece is counted piece by piece: at most one token too many for each cut."""
    count = _encoding().encode_ordinary
    return sum(len(count(text[at : at + _PIECE])) for at in range(0, len(text), _PIECE))


async def count_tokens(text: str) -> int:
    """As ``count_now``, in a thread when the text is long or the vocabulary is not loaded yet."""
    if len(text) <= _INLINE and _encoding.cache_info().currsize:
        return count_now(text)
    return await asyncio.to_thread(count_now, text)
