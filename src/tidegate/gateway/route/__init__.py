"""Which models may answer, in which order, until when."""

from tidegate.gateway.route.rules import Chain, Need, choose, need_of

__all__ = ["Chain", "Need", "choose", "need_of"]
