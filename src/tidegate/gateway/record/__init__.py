"""The receipt: written whatever happened, before the answer ends."""

from tidegate.gateway.record.run import Recorder

__all__ = ["Recorder"]
