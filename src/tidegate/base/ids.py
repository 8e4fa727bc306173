"""UUID version 7 (RFC 9562, 5.7): ids that sort by time and do not collide between workers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""A random hex digit to one whose upper two bits are the variant."""


def make_id_source(
    now: Callable[[], float] = time.time, entropy: Callable[[int], bytes] = os.urandom
) -> Callable[[], str]:
    """A function that makes UUIDv7 strings of 32 hex digits (no dashes).

    Entropy is drawn 4 KiB at a time, for one system call per several hundred ids.
    """
    pool = ""
    at = 0

    def new_id() -> str:
        nonlocal pool, at
        # A process that was forked without exec(2) would make the ids of this pool once more:
        # nothing here is started so.
        if at >= len(pool):
            pool, at = entropy(4096)[:4095].hex(), 0
        random = pool[at : at + 19]
        at += 19
        if len(random) < 19:
            return new_id()
        # 48 bits of milliseconds | version 7 | 12 random bits | variant 10 | 62 random bits
        variant = _VARIANT[random[3]]
        return f"{int(now() * 1000):012x}7{random[:3]}{variant}{random[4:]}"

    return new_id


new_id = make_id_source()
