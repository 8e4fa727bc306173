"""The Secret value, which shows its name and never its keys, whoever prints, logs or encodes it."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import Any, NoReturn


def fingerprint(key: str) -> str:
    """The name of a provider's key in receipts and on screens: 8 hex digits of its sha256, enough
    to tell keys apart and useless to guess them."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]


class Secret:
    """A pool of one or more keys under one name. Only ``reveal()`` gives the keys."""

    __slots__ = ("__reveal", "name")

    def __init__(self, name: str, keys: Sequence[str]) -> None:
        kept = tuple(keys)
        self.name = name
        # In a closure, so that a tool that walks over attributes meets a function.
        self.__reveal: Callable[[], tuple[str, ...]] = lambda: kept

    def reveal(self) -> tuple[str, ...]:
        """The keys, for the one place that sends them."""
        return self.__reveal()

    def __len__(self) -> int:
        return len(self.__reveal())

    def __repr__(self) -> str:
        return f"<secret {self.name}: {len(self)} key{'s' * (len(self) != 1)}>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        mine, theirs = ("\n".join(s.reveal()).encode() for s in (self, other))
        return self.name == other.name and hmac.compare_digest(mine, theirs)

    def __hash__(self) -> int:
        return hash(self.name)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"{self!r} is not written to bytes; resolve it where it is used")
