"""Limits: what a request may use at worst is reserved before it goes on; ``record`` settles."""

from tidegate.gateway.limits.run import Limits

__all__ = ["Limits"]
