"""Who is it, what do they ask for, may they: the request becomes a ``Call`` or a refusal."""

from tidegate.gateway.admit.headers import read_context
from tidegate.gateway.admit.run import Reader, admit

__all__ = ["Reader", "admit", "read_context"]
