"""Which models may answer, in which order, until when."""

from tidegate.gateway.route.rules import Chain, choose

__all__ = ["Chain", "choose"]
