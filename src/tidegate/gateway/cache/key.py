"""The key of an exact answer covers everything that may change it.

That is: the tenant, the fingerprint of the route (its prompt, models, schema, tools and caps as
released), the form of the answer, and every field of the upstream request that its dialect does
not declare inert. A parameter that nobody here has heard of changes the key.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping

import msgspec

_FRESH = re.compile("no-store|no-cache", re.IGNORECASE)


def cache_key(
    tenant: str | None,
    fingerprint: bytes,
    fields: Mapping[str, bytes],
    form: str,
    inert: Collection[str],
) -> bytes:
    """sha256 digest (32 bytes). ``form`` tells answers of one kind from those of another: dialect,
    whole or stream, with usage or without. ``inert`` fields never change an answer."""
    # Each part is preceded by its length, so that no two lists of parts give the same bytes.
    who = (tenant or "").encode()
    parts = [fingerprint, b"%d:%b%d:%b" % (len(who), who, len(form), form.encode())]
    for name in sorted(fields):
        if name not in inert:
            value = fields[name]
            parts += (b"%d=%b%d:" % (len(name), name.encode(), len(value)), value)
    return hashlib.sha256(b"".join(parts)).digest()


class Bypass(msgspec.Struct, frozen=True):
    """Why a request is not cached, in words."""

    reason: str


def why_not(temperature: float | None, control: str | None) -> Bypass | None:
    """The reason why a request must not be cached; None when it may be."""
    if temperature is not None and temperature > 0:
        return Bypass("temperature above 0 asks for a fresh answer")
    if control is not None and _FRESH.search(control):
        return Bypass("cache-control asks for a fresh answer")
    return None
