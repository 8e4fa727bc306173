"""Limits: what a request may use at worst is reserved before it goes on; ``record`` settles."""

from tidegate.gateway.admit.limits.rules import RouteLimits, limits_of
from tidegate.gateway.admit.limits.run import Limits

__all__ = ["Limits", "RouteLimits", "limits_of"]
