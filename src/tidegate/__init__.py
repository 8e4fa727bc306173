"""Tidegate hardens AI features: objectives met, cost held, traffic spikes survived.

Two planes that meet in four books. The floor plan, from the roof down:

    7  cli, console                     commands; the operator's door
    6  deploy, pools                    an app's parts on this machine; supervised model servers
    5  sdk                              instrument an app: journeys and stages
    4  gateway                          the data plane: every request passes through it
    3  registry, ledger, switches       artifacts; the truth; what flips live
    2  spec                             the authored app, and how it becomes a release
    1  release, secrets, stores         the frozen app; keys that never print; the engines
    0  base, stats                      errors, ids, hashing, money, children; pure statistics
    beside: testing                     public fakes; nothing inside imports it

A room imports only from floors below its own (checked by ``make check``).
"""

__version__ = "0.1.0"
