"""A bounded queue for each route: so many ask a model, so many wait, the rest is told no."""

from tidegate.gateway.queue.run import QueuePlace, QueueStatistics, RouteQueues

__all__ = ["QueuePlace", "QueueStatistics", "RouteQueues"]
