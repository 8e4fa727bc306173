"""What may flip without a release: keys, kill switches, caps, traffic weights, flags.

Holds:    the switches at one version, who changed what, which worker runs which version, flags.
Not here: what a switch does to a request (gateway), how tables come to be (stores).
Reads:    PostgreSQL.   Writes: PostgreSQL (switches, changes), .tidegate/run (the last snapshot).
Words:    key, tenant, kill, cap, traffic weight, flag, variant, snapshot, switch version, worker
"""

from tidegate.switches.changes import Change, list_changes
from tidegate.switches.keys import Key, NewKey, create_key, list_keys, revoke_key
from tidegate.switches.rules import PRIORITIES, KeyRecord, KeyRefusal, KeyTable, Priority
from tidegate.switches.run import Plain, Taker, watch
from tidegate.switches.snapshot import snapshot
from tidegate.switches.values import (
    EVERY,
    Cap,
    FlagDocument,
    Kill,
    SecretKey,
    SecretState,
    Standing,
    SwitchSnapshot,
    Weight,
)
from tidegate.switches.workers import Place, Worker, list_workers, place_of

__all__ = [
    "EVERY",
    "PRIORITIES",
    "Cap",
    "Change",
    "FlagDocument",
    "Key",
    "KeyRecord",
    "KeyRefusal",
    "KeyTable",
    "Kill",
    "NewKey",
    "Place",
    "Plain",
    "Priority",
    "SecretKey",
    "SecretState",
    "Standing",
    "SwitchSnapshot",
    "Taker",
    "Weight",
    "Worker",
    "create_key",
    "list_changes",
    "list_keys",
    "list_workers",
    "place_of",
    "revoke_key",
    "snapshot",
    "watch",
]
