"""The data plane: every request of an AI feature passes through here, top to bottom.

Holds:    the path and its stages (admit, render, cache, route, call, guard, record), the wire.
Not here: deciding what should be served (release, switches), reading what happened (ledger).
Reads:    release, switches.   Writes: the spool of the ledger, the cache.
Words:    request, stage, route, target, commit point, answer, receipt
"""
