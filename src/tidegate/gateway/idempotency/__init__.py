"""The same Idempotency-Key and the same body: one call, one answer, however often it is sent."""

from tidegate.gateway.idempotency.run import Idempotency, IdempotencyHold

__all__ = ["Idempotency", "IdempotencyHold"]
