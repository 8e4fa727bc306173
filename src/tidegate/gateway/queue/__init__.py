"""A bounded queue for each route: so many ask a model, so many wait, the rest is told no."""

from tidegate.gateway.queue.run import Place, Queue, QueueStatistics

__all__ = ["Place", "Queue", "QueueStatistics"]
