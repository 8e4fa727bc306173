"""What an answer must be before it counts: the route's output schema."""

from tidegate.gateway.guard.schema import OutputGuard

__all__ = ["OutputGuard"]
