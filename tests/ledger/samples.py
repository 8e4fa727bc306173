"""Receipts and spool files for the tests of the ledger; the same for the same seed."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from tidegate.base.ids import new_id
from tidegate.base.money import Usage
from tidegate.ledger.receipts import Attempt, Receipt
from tidegate.ledger.spool import SpoolWriter

RELEASE = "sha256:" + "ab" * 32


def make_receipt(**changes: Any) -> Receipt:
    """A served chat request of now; ``changes`` replace fields."""
    fields: dict[str, Any] = {
        "id": new_id(),
        "at": time.time(),
        "kind": "chat",
        "status": 200,
        "outcome": "served",
        "release": RELEASE,
        "route": "recommend",
        "tenant": "acme",
        "key": "key_1",
        "model": "small",
        "finish": "stop",
        "usage": Usage(prompt=40, completion=20),
        "cost": 0.001,
        "cache": "miss",
        "stages": {
            "admit": 0.02,
            "render": 0.1,
            "cache": 0.3,
            "route": 0.01,
            "call": 100.0,
            "guard": 0.05,
            "record": 0.02,
        },
        "total": 100.5,
        "attempts": (Attempt(model="small", ms=100.0, status=200),),
        "worker": 7,
    }
    return Receipt(**{**fields, **changes})


def random_receipts(count: int, seed: int = 1, **changes: Any) -> list[Receipt]:
    """``count`` receipts whose call times are log-normal about 100 ms."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        call = rng.lognormvariate(4.6, 0.6)
        stages = {**make_receipt().stages, "call": call}
        made.append(make_receipt(**{"stages": stages, "total": call + 0.6, **changes}))
    return made


def spool(
    folder: Path, receipts: Iterable[Receipt], request: bytes = b"", response: bytes = b""
) -> SpoolWriter:
    """Append ``receipts`` to a new file in ``folder``; the writer, still open."""
    writer = SpoolWriter(folder)
    for receipt in receipts:
        writer.append(msgspec.json.encode(receipt), request, response)
    return writer
