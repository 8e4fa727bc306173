"""What may flip without a release; so far the states of gateway keys.

Holds:    keys (made, listed, revoked), their snapshot, the watcher that brings it to a gateway.
Not here: what a key may do on a request (gateway admit), how tables come to be (stores).
Reads:    PostgreSQL.   Writes: PostgreSQL (keys), .tidegate/run (the last snapshot).
Words:    key, token, tenant, snapshot, switch version
"""

from tidegate.switches.keys import Key, NewKey, create_key, list_keys, revoke_key, snapshot
from tidegate.switches.rules import (
    PRIORITIES,
    KeyRecord,
    KeyRefusal,
    KeySnapshot,
    KeyTable,
    Priority,
)
from tidegate.switches.run import watch

__all__ = [
    "PRIORITIES",
    "Key",
    "KeyRecord",
    "KeyRefusal",
    "KeySnapshot",
    "KeyTable",
    "NewKey",
    "Priority",
    "create_key",
    "list_keys",
    "revoke_key",
    "snapshot",
    "watch",
]
