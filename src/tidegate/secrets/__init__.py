"""Secrets: provider keys by name, looked up where they are used, never printed.

Holds:    the Secret value, where the keys of ``secret:name`` are looked up, adding and removing.
Not here: gateway keys of users (switches), who calls a provider (gateway).
Reads:    the environment it is handed, .tidegate/secrets.   Writes: .tidegate/secrets.
Words:    secret, reveal, pool of keys, key fingerprint
"""

from tidegate.secrets.resolve import place_of, plain_name, read_keys, resolve
from tidegate.secrets.store import add_key, remove_key
from tidegate.secrets.values import Secret, fingerprint

__all__ = [
    "Secret",
    "add_key",
    "fingerprint",
    "place_of",
    "plain_name",
    "read_keys",
    "remove_key",
    "resolve",
]
