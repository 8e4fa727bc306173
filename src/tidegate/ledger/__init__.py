"""The truth: what happened to every request, and what it cost; append-only.

Holds:    receipts, the spool, the loader, content, roll-ups, journeys, verdicts and decisions, the
          questions over them, and the cursor that gives each new receipt once.
Not here: judging what happened (evals to drift), drawing it (cli, console).
Reads:    the spool.   Writes: PostgreSQL.
Words:    receipt, spool, content, stage, journey, purpose, roll-up, retention, health, error class,
          cursor, verdict, decision
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.base import lazy
from tidegate.ledger.gauges import WorkerGauges, gauges_path, read_gauges, write_gauges
from tidegate.ledger.reading import reading
from tidegate.ledger.receipts import Attempt, CacheResult, Outcome, Purpose, Receipt, ServedBy
from tidegate.ledger.spans import Span, SpanBatch, tidy
from tidegate.ledger.spool import SpoolWriter
from tidegate.ledger.spool_reader import backlog
from tidegate.ledger.stages import STAGE_TABLE, STAGES, RequestStage
from tidegate.ledger.status import LedgerStatus, is_fresh, read_status

if TYPE_CHECKING:
    from tidegate.ledger.classes import BY_CODE, ERROR_CLASSES, ErrorClass, class_of, error_class
    from tidegate.ledger.cursor import ReceiptPage, new_receipts, newest_position
    from tidegate.ledger.decisions import (
        Decision,
        LedgerActor,
        Verdict,
        VerdictValue,
        decisions_of,
        verdicts_of,
        write_decision,
        write_verdict,
    )
    from tidegate.ledger.find import Kept, ReceiptFilter, find_receipts, one_receipt
    from tidegate.ledger.health_query import Health, health
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
            "classes": ("BY_CODE", "ERROR_CLASSES", "ErrorClass", "class_of", "error_class"),
            "cursor": ("ReceiptPage", "new_receipts", "newest_position"),
            "decisions": (
                "Decision",
                "LedgerActor",
                "Verdict",
                "VerdictValue",
                "decisions_of",
                "verdicts_of",
                "write_decision",
                "write_verdict",
            ),
            "health_query": ("Health", "health"),
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
    "BY_CODE",
    "ERROR_CLASSES",
    "JSON",
    "LARGEST_BODY",
    "PROTOBUF",
    "SPANS",
    "STAGES",
    "STAGE_TABLE",
    "Attempt",
    "CacheResult",
    "Connection",
    "Decision",
    "Decoded",
    "ErrorClass",
    "Health",
    "Kept",
    "LedgerActor",
    "LedgerStatus",
    "Outcome",
    "Picture",
    "Profile",
    "Purpose",
    "Quantiles",
    "Receipt",
    "ReceiptFilter",
    "ReceiptPage",
    "RequestStage",
    "ServedBy",
    "Span",
    "SpanBatch",
    "SpoolWriter",
    "StageRow",
    "Verdict",
    "VerdictValue",
    "WorkerGauges",
    "backlog",
    "class_of",
    "cost_is_unknown",
    "decisions_of",
    "decode",
    "error_class",
    "find_receipts",
    "gauges_path",
    "health",
    "is_fresh",
    "new_receipts",
    "newest_position",
    "one_receipt",
    "profile",
    "read_gauges",
    "read_status",
    "reading",
    "require_content",
    "tidy",
    "verdicts_of",
    "write_decision",
    "write_gauges",
    "write_verdict",
]
