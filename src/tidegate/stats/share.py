"""Whose time is the P95? The share of each part in the totals near a quantile.

The quantile of a sum is allotted to its parts by the Euler principle: part i contributes
E[X_i | S = q] / E[S | S = q], the derivative of the quantile by the part's weight (Tasche:
"Risk contributions and performance measurement", 1999). Contributions add up to one, and a part
that is large only when the total is small gets little, which P95 of each part alone would hide.

"Near q" are the totals between the P90 and the P99 by rank: 9% of all, wide enough that the mean
is steady, centred on the P95, and without the last percent, whose accidents would outweigh the
rest. When that is fewer than ``AT_LEAST`` totals the neighbourhood grows downwards until it holds
so many (or all). A shelf of totals that lies partly inside counts with that part of its weight.

Totals are kept on shelves about 8% wide (four buckets of the sketch); a shelf holds how many
totals, their sum and the sum of each part, so that shelves of many minutes merge by addition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from tidegate.stats.sketch import BUCKETS, bucket_of

OTHER = "other"
"""What no part accounts for; a part of this name is added to it."""
NEAR = (0.90, 0.99)
AT_LEAST = 10
_BUCKETS_PER_SHELF = 4
SHELVES = -(-BUCKETS // _BUCKETS_PER_SHELF)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Shelves:
    """``count``, ``total`` and each of ``parts``: arrays of SHELVES numbers."""

    count: Array
    total: Array
    parts: Mapping[str, Array]

    @classmethod
    def of(cls, total: ArrayLike, parts: Mapping[str, ArrayLike]) -> Shelves:
        """Put ``total[k] = parts[..][k] summed + unaccounted`` (milliseconds) on their shelves."""
        totals = np.asarray(total, dtype=np.float64)
        shelf = bucket_of(totals) // _BUCKETS_PER_SHELF

        def summed(weights: Array | None) -> Array:
            return np.bincount(shelf, weights, minlength=SHELVES).astype(np.float64)

        return cls(
            summed(None),
            summed(totals),
            {name: summed(np.asarray(part, dtype=np.float64)) for name, part in parts.items()},
        )

    @classmethod
    def merged(cls, many: Iterable[Shelves]) -> Shelves:
        count, total = np.zeros(SHELVES), np.zeros(SHELVES)
        parts: dict[str, Array] = {}
        for one in many:
            count = count + one.count
            total = total + one.total
            for name, part in one.parts.items():
                parts[name] = parts[name] + part if name in parts else part
        return cls(count, total, parts)

    @classmethod
    def merged_from(cls, encoded: Iterable[bytes]) -> Shelves:
        """The merge of many encoded shelves. Raises ValueError for foreign bytes."""
        try:
            stored = [_decoder.decode(one) for one in encoded]
        except msgspec.DecodeError as error:
            raise ValueError(f"not shelves: {error}") from None
        by_part: dict[str, tuple[list[bytes], list[bytes]]] = {}
        for one in stored:
            for name, part in one.parts.items():
                where, sums = by_part.setdefault(name, ([], []))
                where.append(one.shelf)
                sums.append(part)
        at = [one.shelf for one in stored]
        return cls(
            _summed(at, [one.count for one in stored], "<f8"),
            _summed(at, [one.total for one in stored], "<f8"),
            {name: _summed(where, sums, "<f4") for name, (where, sums) in by_part.items()},
        )

    def encode(self) -> bytes:
        """The filled shelves only; sums of parts with 24 bits of mantissa."""
        at = np.flatnonzero(self.count)
        return _encoder.encode(
            _Stored(
                shelf=at.astype("<u2").tobytes(),
                count=self.count[at].astype("<f8").tobytes(),
                total=self.total[at].astype("<f8").tobytes(),
                parts={n: p[at].astype("<f4").tobytes() for n, p in self.parts.items()},
            )
        )


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    shelf: bytes
    count: bytes
    total: bytes
    parts: dict[str, bytes]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Stored)


def _summed(shelves: list[bytes], values: list[bytes], kind: str) -> Array:
    """Values added up by shelf; joined first, because one large addition beats many small."""
    where, what = np.frombuffer(b"".join(shelves), "<u2"), np.frombuffer(b"".join(values), kind)
    if where.size != what.size or (where.size and int(where.max()) >= SHELVES):
        raise ValueError("not shelves: positions and values do not fit together")
    return np.bincount(where, what, minlength=SHELVES).astype(np.float64)


def weights_near(count: Array, near: tuple[float, float] = NEAR) -> Array:
    """For each shelf the share of its totals whose rank is in the neighbourhood, in [0, 1]."""
    n = float(count.sum())
    high = near[1] * n if n > AT_LEAST else n
    low = max(0.0, min(near[0] * n, high - AT_LEAST))
    reached = np.cumsum(count)
    inside = np.minimum(reached, high) - np.maximum(reached - count, low)
    return np.asarray(
        np.divide(np.maximum(inside, 0.0), count, out=np.zeros_like(count), where=count > 0)
    )


def shares(
    shelves: Shelves, within: Mapping[str, str] | None = None, near: tuple[float, float] = NEAR
) -> dict[str, float]:
    """The share of each part in the totals near the quantile; with ``other`` they add up to 1.

    ``within`` names, for a part that is only a piece of another one, that other part: such a
    piece gets a share too but is left out of the sum. Empty shelves give no shares at all.
    """
    pieces = within or {}
    weight = weights_near(shelves.count, near)
    amount = {name: float(part @ weight) for name, part in shelves.parts.items()}
    accounted = sum(value for name, value in amount.items() if name not in pieces)
    whole = max(float(shelves.total @ weight), accounted)
    if whole <= 0:
        return {}
    result = {name: value / whole for name, value in amount.items()}
    result[OTHER] = result.get(OTHER, 0.0) + max(0.0, 1.0 - accounted / whole)
    return result
