"""What an answer must hold to before it counts: the checks of its route."""

from tidegate.gateway.guard.rules import StreamGuard, require

__all__ = ["StreamGuard", "require"]
