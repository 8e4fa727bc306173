"""The data plane: every request of an AI feature passes through here, top to bottom.

Holds:    the path and its stages, what clients speak (dialects) and what models speak (providers),
          the neutral form between them, plans, targets with their keys, the wire.
Not here: deciding what should be served (release, switches), reading what happened (ledger).
Reads:    release, switches.   Writes: the spool of the ledger, the cache.
Words:    request, stage, route, plan, target, attempt, journal, commit point, answer, ending,
          receipt, dialect, provider, neutral, wire format
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.base import lazy

if TYPE_CHECKING:
    from tidegate.gateway.boot import bind_model
else:
    # Of a gateway's own process each module imports what it needs; this is for other rooms.
    __getattr__ = lazy(__name__, {"boot": ("bind_model",)})

__all__ = ["bind_model"]
