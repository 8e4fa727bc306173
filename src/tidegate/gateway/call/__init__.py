"""Ask a model: provider adapters, timeouts, retries, breakers, keys, hedges, fallback until the
first content."""

from tidegate.gateway.call.hedge import HedgeBudget
from tidegate.gateway.call.key_states import draining, not_here, settings_of
from tidegate.gateway.call.keys import KeySetting
from tidegate.gateway.call.retries import RetryBudget
from tidegate.gateway.call.run import ask_stream, ask_whole, join_chunks
from tidegate.gateway.call.stream import Stream
from tidegate.gateway.call.target import Target, make_target

__all__ = [
    "HedgeBudget",
    "KeySetting",
    "RetryBudget",
    "Stream",
    "Target",
    "ask_stream",
    "ask_whole",
    "draining",
    "join_chunks",
    "make_target",
    "not_here",
    "settings_of",
]
