"""Who is it, what do they ask for, may they: an admitted request, or a refusal."""

from tidegate.gateway.admit.headers import bearer
from tidegate.gateway.admit.run import admit, find_model
from tidegate.gateway.admit.switched import Switchboard, switchboard

__all__ = ["Switchboard", "admit", "bearer", "find_model", "switchboard"]
