"""Models bound to where they are served: adapter, connections, keys with their health."""

from tidegate.gateway.targets.failures import (
    HEDGE_LOST,
    LEFT,
    AttemptFailed,
    Failure,
    first_to_tell,
    of_fault,
    of_status,
)
from tidegate.gateway.targets.key_states import draining, not_here, settings_of
from tidegate.gateway.targets.keys import KeySetting, Lease
from tidegate.gateway.targets.target import Target, make_target

__all__ = [
    "HEDGE_LOST",
    "LEFT",
    "AttemptFailed",
    "Failure",
    "KeySetting",
    "Lease",
    "Target",
    "draining",
    "first_to_tell",
    "make_target",
    "not_here",
    "of_fault",
    "of_status",
    "settings_of",
]
