"""Ids are UUIDs of version 7: they sort by time and do not repeat."""

from __future__ import annotations

import threading
import uuid

from hypothesis import given
from hypothesis import strategies as st

from tidegate.base.ids import make_id_source, new_id


@given(st.floats(0, 4e9), st.binary(min_size=10, max_size=10))
def test_an_id_is_a_valid_uuid_of_its_time(now: float, entropy: bytes) -> None:
    text = make_id_source(lambda: now, lambda n: entropy * (n // 10 + 1))()
    value = uuid.UUID(hex=text)
    assert (value.version, value.variant) == (7, uuid.RFC_4122)
    assert value.int >> 80 == int(now * 1000)
    assert text == text.lower()
    assert len(text) == 32


@given(st.lists(st.floats(0, 4e9), min_size=2, max_size=5))
def test_ids_sort_by_time(times: list[float]) -> None:
    clock = iter(sorted(times))
    source = make_id_source(lambda: next(clock))
    ids = [source()[:12] for _ in times]
    assert ids == sorted(ids)


def test_all_random_bits_are_drawn() -> None:
    """Every bit but those of version and variant takes both values."""
    source = make_id_source(lambda: 0.0)
    ones = zeros = 0
    for _ in range(2000):
        value = int(source(), 16)
        ones |= value
        zeros |= ~value
    random = (0xFFF << 64) | ((1 << 62) - 1)
    assert ones & random == random
    assert zeros & random == random


def test_ids_do_not_repeat() -> None:
    assert len({new_id() for _ in range(100_000)}) == 100_000


def test_ids_of_threads_do_not_repeat() -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.extend([new_id() for _ in range(5000)]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 20_000
