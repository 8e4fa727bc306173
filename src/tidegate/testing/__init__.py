"""Public fakes for tests and benchmarks: a simulated model server with scripted failures.

Holds:    ModelServer (OpenAI and Anthropic dialects), Script and its faults, timing distributions.
Not here: real models (pools), generating load (load).
Reads:    base.   Writes: nothing.
Words:    beat, dialect, fault, script, step, first token, inter-token time
"""

from tidegate.testing.answers import Echo, ToolCall, Words
from tidegate.testing.faults import (
    Cut,
    Drip,
    ErrorEvent,
    Fault,
    Hang,
    InvalidEvent,
    MissingDone,
    NoUsage,
    Refuse,
    Reset,
    Silence,
    SlowFirstToken,
    Stall,
    UsageWithChoices,
)
from tidegate.testing.model_server import ModelServer
from tidegate.testing.script import Script, Step
from tidegate.testing.seen import SeenRequest, Statistics
from tidegate.testing.timings import Constant, Empirical, Exponential, Lognormal, Timing

__all__ = [
    "Constant",
    "Cut",
    "Drip",
    "Echo",
    "Empirical",
    "ErrorEvent",
    "Exponential",
    "Fault",
    "Hang",
    "InvalidEvent",
    "Lognormal",
    "MissingDone",
    "ModelServer",
    "NoUsage",
    "Refuse",
    "Reset",
    "Script",
    "SeenRequest",
    "Silence",
    "SlowFirstToken",
    "Stall",
    "Statistics",
    "Step",
    "Timing",
    "ToolCall",
    "UsageWithChoices",
    "Words",
]
