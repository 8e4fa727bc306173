"""Instrument an app: name its journeys and stages, and join them with what the gateway did.

Holds:    start and shutdown, journey and stage, the OTLP exporter, trace context for OpenAI.
Not here: receiving spans (console), joining them with receipts (ledger), calls (client).
Reads:    the runtime file, TIDEGATE_* variables.   Writes: nothing (sends spans to the operator).
Words:    journey, stage, span, trace context, baggage
"""

from tidegate.sdk.propagation import trace_headers
from tidegate.sdk.run import shutdown, start
from tidegate.sdk.spans import journey, stage

__all__ = ["journey", "shutdown", "stage", "start", "trace_headers"]
