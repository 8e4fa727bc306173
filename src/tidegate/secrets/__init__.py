"""Provider keys by name: found when they are used, and never printed.

Holds:    the Secret value, where the keys of ``secret:name`` are looked up.
Not here: gateway keys of users (switches), who calls a provider (gateway).
Reads:    the environment it is handed, .tidegate/secrets.   Writes: nothing.
Words:    secret, reveal, pool of keys
"""

from tidegate.secrets.resolve import resolve
from tidegate.secrets.values import Secret, fingerprint

__all__ = ["Secret", "fingerprint", "resolve"]
