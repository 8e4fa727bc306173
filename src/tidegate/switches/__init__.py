"""What may flip without a release: keys, kill switches, caps, traffic weights, flags.

Holds:    the switches and keys at one version, differences between versions, who changed what,
          which worker runs which version, flags.
Not here: what a switch does to a request (gateway), how tables come to be (stores).
Reads:    PostgreSQL.   Writes: PostgreSQL (switches, changes), .tidegate/run (what was last
          in force).
Words:    switch, gateway key, tenant, kill, cap, traffic weight, flag, variant, snapshot,
          switch version, acknowledgement, worker
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.base import lazy
from tidegate.switches.changes import Change, list_changes
from tidegate.switches.keys import Key, NewKey, create_key, list_keys, revoke_key
from tidegate.switches.rules import PRIORITIES, KeyRecord, KeyRefusal, KeyTable, Priority
from tidegate.switches.run import Plain, Taker, watch
from tidegate.switches.snapshot import key_records, snapshot
from tidegate.switches.traffic_rules import Split, pick, split_of
from tidegate.switches.values import (
    EVERY,
    Cap,
    FlagDocument,
    Kill,
    KillKind,
    SecretKey,
    SecretState,
    Standing,
    SwitchSnapshot,
    Weight,
)
from tidegate.switches.workers import (
    ACKS,
    ChangeOutcome,
    Place,
    Worker,
    list_workers,
    place_of,
    wait_acknowledged,
)
from tidegate.switches.write import (
    Author,
    FlagVersion,
    flag_document,
    kill,
    lift_cap,
    lift_kill,
    lift_row,
    list_flags,
    rollback_flags,
    set_cap,
    set_flags,
    set_row,
    set_secret_key,
    set_traffic,
)

if TYPE_CHECKING:
    from tidegate.switches.flags import HASH_FORM, Flags, check, require_form
else:
    # The flag engine: only a gateway with flags loads it.
    __getattr__ = lazy(__name__, {"flags": ("HASH_FORM", "Flags", "check", "require_form")})

__all__ = [
    "ACKS",
    "EVERY",
    "HASH_FORM",
    "PRIORITIES",
    "Author",
    "Cap",
    "Change",
    "ChangeOutcome",
    "FlagDocument",
    "FlagVersion",
    "Flags",
    "Key",
    "KeyRecord",
    "KeyRefusal",
    "KeyTable",
    "Kill",
    "KillKind",
    "NewKey",
    "Place",
    "Plain",
    "Priority",
    "SecretKey",
    "SecretState",
    "Split",
    "Standing",
    "SwitchSnapshot",
    "Taker",
    "Weight",
    "Worker",
    "check",
    "create_key",
    "flag_document",
    "key_records",
    "kill",
    "lift_cap",
    "lift_kill",
    "lift_row",
    "list_changes",
    "list_flags",
    "list_keys",
    "list_workers",
    "pick",
    "place_of",
    "require_form",
    "revoke_key",
    "rollback_flags",
    "set_cap",
    "set_flags",
    "set_row",
    "set_secret_key",
    "set_traffic",
    "snapshot",
    "split_of",
    "wait_acknowledged",
    "watch",
]
