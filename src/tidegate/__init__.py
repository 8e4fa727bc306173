"""Tidegate hardens AI features: objectives met, cost held, traffic spikes survived.

Two planes that meet in four books. The floor plan, from the roof down:

    9  cli, console                     commands; the operator's door
    5  pools                            supervised model servers
    4  client, sdk                      talk to a gateway; instrument an app
    3  gateway                          the data plane: every request passes through it
    2  registry, ledger, switches       artifacts; the truth; what flips live
    1  release, spec, secrets, stores   the pin; the wish; keys; PostgreSQL and Valkey
    0  base, stats                      errors, clock, ids, hashing, money; pure statistics
    beside: testing                     public fakes; nothing inside imports it

A room imports only from floors below its own (checked by ``make check``).
"""

__version__ = "0.1.0"
