"""The pin: everything a request may depend on, resolved to hashes, named by one digest.

Holds:    the resolved values, how a spec becomes a release, what changed between two.
Not here: what a person writes (spec), where artifacts lie (registry), what flips live (switches).
Reads:    spec.   Writes: nothing; the registry keeps what is built.
Words:    release, digest, pin, resolved
"""
