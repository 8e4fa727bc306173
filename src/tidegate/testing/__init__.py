"""Public fakes for tests and benchmarks: a simulated model server with scripted failures.

Holds:    ModelServer (OpenAI and Anthropic dialects), Script and its faults, timing distributions.
Not here: real models (pools), generating load (load).
Reads:    base.   Writes: nothing.
Words:    beat, dialect, fault, script, step, first token, inter-token time
"""

from tidegate.testing.answers import Echo, ScriptedAnswer, ToolCall, Words
from tidegate.testing.faults import (
    BadBody,
    Cut,
    Drip,
    DuplicateEvent,
    ErrorEvent,
    Fault,
    Filtered,
    Hang,
    Hold,
    InvalidEvent,
    MissingDone,
    MissingField,
    Mutate,
    NoUsage,
    Refuse,
    Reset,
    Silence,
    SlowFirstToken,
    SlowTokens,
    Stall,
    UsageWithChoices,
)
from tidegate.testing.model_server import ModelServer
from tidegate.testing.script import Script, Step, has_prefill
from tidegate.testing.seen import SeenRequest, Statistics
from tidegate.testing.timings import (
    Constant,
    Empirical,
    Exponential,
    Lognormal,
    Timing,
    parse_timing,
)

__all__ = [
    "BadBody",
    "Constant",
    "Cut",
    "Drip",
    "DuplicateEvent",
    "Echo",
    "Empirical",
    "ErrorEvent",
    "Exponential",
    "Fault",
    "Filtered",
    "Hang",
    "Hold",
    "InvalidEvent",
    "Lognormal",
    "MissingDone",
    "MissingField",
    "ModelServer",
    "Mutate",
    "NoUsage",
    "Refuse",
    "Reset",
    "Script",
    "ScriptedAnswer",
    "SeenRequest",
    "Silence",
    "SlowFirstToken",
    "SlowTokens",
    "Stall",
    "Statistics",
    "Step",
    "Timing",
    "ToolCall",
    "UsageWithChoices",
    "Words",
    "has_prefill",
    "parse_timing",
]
