"""The truth: what happened to every request, and what it cost; append-only.

Holds:    receipts, the spool, the loader, content, roll-ups, journeys, and the questions over them.
Not here: judging what happened (evals to drift), drawing it (cli, console).
Reads:    the spool.   Writes: PostgreSQL.
Words:    receipt, spool, content, stage, journey, roll-up, retention
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.base import lazy
from tidegate.ledger.gauges import WorkerGauges, gauges_path, read_gauges, write_gauges
from tidegate.ledger.reading import reading
from tidegate.ledger.receipts import STAGES, Attempt, CacheResult, Outcome, Receipt, ServedBy
from tidegate.ledger.spans import Span, SpanBatch, tidy
from tidegate.ledger.spool import SpoolWriter
from tidegate.ledger.spool_reader import backlog
from tidegate.ledger.status import LedgerStatus, is_fresh, read_status

if TYPE_CHECKING:
    from tidegate.ledger.find import Kept, ReceiptFilter, find_receipts, one_receipt
    from tidegate.ledger.otlp import JSON, LARGEST_BODY, PROTOBUF, Decoded, decode
    from tidegate.ledger.partitions import Connection
    from tidegate.ledger.questions import (
        Picture,
        Profile,
        Quantiles,
        StageRow,
        profile,
        require_content,
    )
    from tidegate.ledger.rollups import cost_is_unknown
    from tidegate.ledger.run import SPANS
else:
    __getattr__ = lazy(
        __name__,
        {
            "find": ("Kept", "ReceiptFilter", "find_receipts", "one_receipt"),
            "otlp": ("JSON", "LARGEST_BODY", "PROTOBUF", "Decoded", "decode"),
            "partitions": ("Connection",),
            "questions": (
                "Picture",
                "Profile",
                "Quantiles",
                "StageRow",
                "profile",
                "require_content",
            ),
            "rollups": ("cost_is_unknown",),
            "run": ("SPANS",),
        },
    )

__all__ = [
    "JSON",
    "LARGEST_BODY",
    "PROTOBUF",
    "SPANS",
    "STAGES",
    "Attempt",
    "CacheResult",
    "Connection",
    "Decoded",
    "Kept",
    "LedgerStatus",
    "Outcome",
    "Picture",
    "Profile",
    "Quantiles",
    "Receipt",
    "ReceiptFilter",
    "ServedBy",
    "Span",
    "SpanBatch",
    "SpoolWriter",
    "StageRow",
    "WorkerGauges",
    "backlog",
    "cost_is_unknown",
    "decode",
    "find_receipts",
    "gauges_path",
    "is_fresh",
    "one_receipt",
    "profile",
    "read_gauges",
    "read_status",
    "reading",
    "require_content",
    "tidy",
    "write_gauges",
]
