"""Ids that sort by time and cannot collide between workers: UUID version 7 (RFC 9562, 5.7)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable


def make_id_source(
    now: Callable[[], float] = time.time, entropy: Callable[[int], bytes] = os.urandom
) -> Callable[[], str]:
    """Return a function that makes UUIDv7 strings of 32 hex digits (no dashes).

    Entropy is drawn 4 KiB at a time, for one system call per several hundred ids.
    """
    pool = b""
    at = 0

    def new_id() -> str:
        nonlocal pool, at
        if at >= len(pool):
            pool, at = entropy(4096), 0
        tail = int.from_bytes(pool[at : at + 10], "big")
        at += 10
        # 48 bits of milliseconds | version 7 | 12 random bits | variant 10 | 62 random bits
        milliseconds = int(now() * 1000)
        random_a = tail >> 68
        random_b = tail & 0x3FFFFFFFFFFFFFFF
        value = milliseconds << 80 | 7 << 76 | (random_a & 0xFFF) << 64 | 2 << 62 | random_b
        return f"{value:032x}"

    return new_id


new_id = make_id_source()
