"""Who is it, what do they ask for, may they: the request becomes a ``Call`` or a refusal."""

from tidegate.gateway.admit.headers import bearer
from tidegate.gateway.admit.limits import Limits, limits_of
from tidegate.gateway.admit.run import admit, find_model
from tidegate.gateway.admit.switched import Switchboard, model_killed, switchboard

__all__ = [
    "Limits",
    "Switchboard",
    "admit",
    "bearer",
    "find_model",
    "limits_of",
    "model_killed",
    "switchboard",
]
