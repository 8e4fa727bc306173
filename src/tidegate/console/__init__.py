"""The operator's door: spans in, answers out, for people and machines that run an app.

Holds:    OTLP over HTTP, the API over the ledger, metrics, health; behind one bearer token.
Not here: what the answers mean (ledger), requests of an app's users (gateway).
Reads:    runtime file, ledger.   Writes: the span spool.
Words:    operator's door, operator token, metrics
"""

# It runs as a process of its own: no room imports it.
__all__: list[str] = []
