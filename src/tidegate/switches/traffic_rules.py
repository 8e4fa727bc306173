"""Which release serves a request: by weight, the same one for the same user; pure.

A user is a point on a line that is divided by the weights. The stable release lies in the middle,
the first candidate grows from the upper end and the second from the lower end, so a candidate that
grows takes users from the stable release only and keeps all that it had. Further candidates stand
next to these, and are moved by them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from tidegate.switches.values import Weight

_LINE = 1 << 64


class Split(msgspec.Struct, frozen=True):
    """Releases in their order on the line, and where each ends."""

    releases: tuple[str, ...]
    ends: tuple[int, ...]


def split_of(weights: Sequence[Weight]) -> Split:
    """The line of ``weights``, the stable release first among them."""
    stable, *candidates = weights
    # what grows inwards stands outermost: the first candidate above, the second below
    order = [*candidates[1::2], stable, *reversed(candidates[::2])]
    total = sum(one.weight for one in order)
    if total <= 0:
        return Split((stable.release,), (_LINE,))
    ends, reached = [], 0
    for one in order:
        reached += one.weight
        ends.append(reached * _LINE // total)
    return Split(tuple(one.release for one in order), tuple(ends))


def point_of(user: str) -> int:
    """Where ``user`` stands on the line, for ever."""
    digest = hashlib.sha256(b"tidegate.traffic.1\0" + user.encode(errors="replace")).digest()
    return int.from_bytes(digest[:8], "big")


def pick(split: Split, user: str) -> str:
    """The release that serves ``user``."""
    point = point_of(user)
    for release, end in zip(split.releases, split.ends, strict=True):
        if point < end:
            return release
    return split.releases[-1]
