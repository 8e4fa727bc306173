"""A bounded queue for each route: some requests ask a model, some wait, the rest are refused."""

from tidegate.gateway.queue.run import QueuePlace, QueueStatistics, RouteQueues

__all__ = ["QueuePlace", "QueueStatistics", "RouteQueues"]
