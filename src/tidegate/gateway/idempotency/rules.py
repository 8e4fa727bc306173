"""What an Idempotency-Key is, what a request with one is, and which outcomes are kept; pure.

Sources: draft-ietf-httpapi-idempotency-key-header (the header is a quoted string there), and the
payment APIs that clients know, which send it bare.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

import msgspec

LONGEST = 255
_BARE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_NEVER = frozenset('",\\')
_PASSING = frozenset((408, 409, 425, 429))
"""Error statuses that a later try may not get again, so they are not kept."""


class Malformed(msgspec.Struct, frozen=True):
    reason: str


def read_key(header: str) -> str | Malformed:
    """The key in the header, with or without its quotes."""
    key = header.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not key:
        return Malformed("it is empty")
    if len(key) > LONGEST:
        return Malformed(f"it has {len(key)} characters, more than {LONGEST}")
    if not _BARE.fullmatch(key) or _NEVER.intersection(key):
        return Malformed("it has characters that no key has, or the header was sent twice")
    return key


def store_key(scope: str, route: str, key: str) -> bytes:
    """The key in Valkey of the outcome; no other ``scope`` (tenant or gateway key) finds it."""
    parts = b"".join(b"%d:%b" % (len(part), part) for part in map(str.encode, (scope, route, key)))
    return hashlib.sha256(parts).digest()


def fingerprint(fields: Mapping[str, bytes | msgspec.Raw]) -> bytes:
    """A digest (32 bytes) of a body that ignores the order of its fields."""
    digest = hashlib.sha256()
    for name in sorted(fields):
        value = bytes(fields[name]).strip()
        encoded = name.encode("utf-8", "surrogatepass")
        digest.update(b"%d=%b%d:" % (len(encoded), encoded, len(value)))
        digest.update(value)
    return digest.digest()


class Keeping(msgspec.Struct, frozen=True):
    kept: bool
    reason: str


def keeps_refusal(status: int, asked: bool) -> Keeping:
    """Whether a refusal is the outcome for good. ``asked``: a model was."""
    if not asked:
        return Keeping(False, "no model was asked, so nothing is lost when it is tried again")
    if 400 <= status < 500 and status not in _PASSING:
        return Keeping(True, "a model refused this request, and would refuse it again")
    return Keeping(False, "what failed may succeed when it is tried again")
