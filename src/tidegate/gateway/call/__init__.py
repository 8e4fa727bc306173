"""Ask a model: provider adapters, timeouts, retries, hedges, fallback until the first content."""

from tidegate.gateway.call.run import Answered, ask_stream, ask_whole
from tidegate.gateway.call.stream import Stream

__all__ = ["Answered", "Stream", "ask_stream", "ask_whole"]
