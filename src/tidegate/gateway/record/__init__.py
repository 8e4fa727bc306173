"""The receipt: written whatever happened, before the answer ends."""

from tidegate.gateway.record.run import Recorder, settle

__all__ = ["Recorder", "settle"]
