"""A mergeable quantile sketch: every quantile within 1% of the true value, merge = add counts.

Logarithmic buckets as in DDSketch (Masson, Rim, Lee: "DDSketch: a fast and fully-mergeable
quantile sketch with relative-error guarantees", PVLDB 12(12), 2019). With a = 1% and
g = (1 + a) / (1 - a), bucket i holds the values in (g^(i-1), g^i] and answers 2 g^i / (g + 1),
which is within a of all of them. Values are milliseconds, from 1 microsecond to 1 day: what is
below counts as zero, what is above as one day. So the buckets are 1,262 at most, for ever.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

RELATIVE_ERROR = 0.01
LOWEST = 1e-3
"""Milliseconds: what is below is in the zero bucket."""
HIGHEST = 86_400_000.0
"""Milliseconds: what is above is counted in the last bucket."""

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA = math.log(_GAMMA)
_LOG_LOWEST = math.log(LOWEST)
BUCKETS = 2 + math.ceil((math.log(HIGHEST) - _LOG_LOWEST) / _LOG_GAMMA)
"""Bucket 0 is zero; bucket 1 + i is (LOWEST g^(i-1), LOWEST g^i]."""
_VALUES = np.concatenate(
    ([0.0], LOWEST * np.exp(np.arange(BUCKETS - 1) * _LOG_GAMMA) * 2 / (_GAMMA + 1))
)
_HEADER = struct.Struct("<BBH")
_VERSION = 1

Counts = NDArray[np.int64]


def bucket_of(values: ArrayLike) -> NDArray[np.intp]:
    """The bucket of each value (milliseconds). Raises ValueError for NaN."""
    array = np.asarray(values, dtype=np.float64)
    if np.isnan(array).any():
        raise ValueError("a duration is not a number; drop it before it is counted")
    clipped = np.clip(array, LOWEST, HIGHEST)
    index = np.ceil((np.log(clipped) - _LOG_LOWEST) / _LOG_GAMMA).astype(np.intp) + 1
    return np.where(array < LOWEST, 0, np.minimum(index, BUCKETS - 1))


class Sketch:
    """How many values fell into each bucket. Immutable; ``+`` merges."""

    __slots__ = ("_counts",)

    def __init__(self, counts: Counts | None = None) -> None:
        self._counts = np.zeros(BUCKETS, np.int64) if counts is None else counts

    @classmethod
    def of(cls, values: ArrayLike) -> Sketch:
        """The sketch of ``values`` (milliseconds). Raises ValueError for NaN."""
        return cls(np.bincount(bucket_of(values), minlength=BUCKETS).astype(np.int64))

    @classmethod
    def merged(cls, sketches: Iterable[Sketch]) -> Sketch:
        counts = np.zeros(BUCKETS, np.int64)
        for sketch in sketches:
            counts += sketch._counts
        return cls(counts)

    @classmethod
    def decode(cls, encoded: bytes) -> Sketch:
        """The inverse of ``encode``. Raises ValueError when the bytes are not a sketch."""
        return cls.merged_from([encoded])

    @classmethod
    def merged_from(cls, encoded: Sequence[bytes]) -> Sketch:
        """The merge of many encoded sketches, without building each: a million a second."""
        joined: dict[int, tuple[list[bytes], list[bytes]]] = {4: ([], []), 8: ([], [])}
        for one in encoded:
            width, filled = _check(one)
            positions, counts = joined[width]
            cut = _HEADER.size + 2 * filled
            positions.append(one[_HEADER.size : cut])
            counts.append(one[cut:])
        total = np.zeros(BUCKETS, np.int64)
        for width, (positions, counts) in joined.items():
            where = np.frombuffer(b"".join(positions), "<u2")
            if where.size and int(where.max()) >= BUCKETS:
                raise ValueError("not a sketch: a bucket is out of range")
            many = np.frombuffer(b"".join(counts), f"<u{width}")
            np.add.at(total, where, many.astype(np.int64))
        return cls(total)

    def encode(self) -> bytes:
        """4 bytes of header, then the filled buckets: positions (2 bytes), counts (4 or 8)."""
        positions = np.flatnonzero(self._counts)
        counts = self._counts[positions]
        width = 4 if counts.size == 0 or int(counts.max()) < 1 << 32 else 8
        return (
            _HEADER.pack(_VERSION, width, positions.size)
            + positions.astype("<u2").tobytes()
            + counts.astype(f"<u{width}").tobytes()
        )

    def __add__(self, other: Sketch) -> Sketch:
        return Sketch(self._counts + other._counts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sketch) and bool(np.array_equal(self._counts, other._counts))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Sketch(count={self.count}, p50={self.quantile(0.5)}, p95={self.quantile(0.95)})"

    @property
    def count(self) -> int:
        return int(self._counts.sum())

    def quantile(self, q: float) -> float | None:
        """The value of nearest rank, ceil(q n), within 1%, in milliseconds; None when empty.

        So the P95 of few values is their largest, never a middle one."""
        if not 0 <= q <= 1:
            raise ValueError(f"a quantile lies in [0, 1], not {q}")
        reached = np.cumsum(self._counts)
        if reached[-1] == 0:
            return None
        rank = max(math.ceil(q * int(reached[-1])), 1) - 1
        return float(_VALUES[int(np.searchsorted(reached, rank, side="right"))])


def _check(encoded: bytes) -> tuple[int, int]:
    """The width of a count in bytes and how many buckets are filled."""
    if len(encoded) < _HEADER.size:
        raise ValueError("not a sketch: it is too short")
    version, width, filled = _HEADER.unpack_from(encoded)
    if (
        version != _VERSION
        or width not in (4, 8)
        or len(encoded) != _HEADER.size + filled * (2 + width)
    ):
        raise ValueError("not a sketch of this version")
    return int(width), int(filled)
