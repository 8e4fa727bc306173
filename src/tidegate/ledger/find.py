"""Find receipts: by filter, newest first, or one whole with its content."""

from __future__ import annotations

import re
import time
from typing import Any

import msgspec

from tidegate.base import Usage, UsageError
from tidegate.ledger.partitions import Connection
from tidegate.ledger.receipts import Attempt, Receipt

MOST = 1000
_STATUS = re.compile(r"[1-5](?:xx|\d\d)")
_PREFIX = re.compile(r"[0-9a-f]{8,32}")

_COLUMNS = (
    "replace(id::text, '-', ''), extract(epoch FROM at)::float8, kind, status, outcome, release, "
    "route, journey, tenant, key, model, stream, code, finish, prompt_tokens, completion_tokens, "
    "cached_tokens, reasoning_tokens, estimated, replayed, cost, cache, stages, first_token, "
    "total, attempts, trace, parent, worker, request_sha, response_sha, "
    "queued, capped, served_by, variant, variant_reason"
)


class ReceiptFilter(msgspec.Struct, frozen=True, kw_only=True):
    """None leaves a field open. ``since``: seconds back from now. ``status``: 404 or 4xx.
    ``provider_key``: the fingerprint of a provider's key that any attempt used."""

    route: str | None = None
    journey: str | None = None
    tenant: str | None = None
    model: str | None = None
    outcome: str | None = None
    code: str | None = None
    trace: str | None = None
    provider_key: str | None = None
    status: str | None = None
    since: float | None = None
    limit: int = 20


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt with its content. ``request`` and ``response`` are None when no content was kept
    (``request_sha`` is None too) or when it is past its retention."""

    receipt: Receipt
    request_sha: str | None
    response_sha: str | None
    request: str | None
    response: str | None


def find_receipts(
    connection: Connection, wanted: ReceiptFilter, now: float | None = None
) -> list[Receipt]:
    """Receipts that match, newest first. UsageError: limit_invalid, status_invalid."""
    if not 1 <= wanted.limit <= MOST:
        raise UsageError(
            "limit_invalid",
            f"a limit of {wanted.limit} is not between 1 and {MOST}",
            cure="ask for fewer, and narrow the filter",
        )
    conditions, values = _conditions(wanted, time.time() if now is None else now)
    where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
    query = f"SELECT {_COLUMNS} FROM receipts {where}ORDER BY id DESC LIMIT %(limit)s"
    rows = connection.execute(query.encode(), {**values, "limit": wanted.limit}).fetchall()
    return [_receipt(row) for row in rows]


def one_receipt(connection: Connection, reference: str) -> Kept:
    """The receipt with this id, or the only one whose id begins so (8 hex digits or more).

    UsageError: receipt_id_invalid, receipt_unknown, receipt_ambiguous.
    """
    prefix = reference.strip().lower().replace("-", "")
    if not _PREFIX.fullmatch(prefix):
        raise UsageError(
            "receipt_id_invalid",
            f"{reference!r} is not the id of a receipt",
            cure="give 8 to 32 hex digits as tidegate receipts lists them",
        )
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM receipts WHERE id >= %s::uuid AND id <= %s::uuid "
        "ORDER BY id DESC LIMIT 2".encode(),
        (prefix.ljust(32, "0"), prefix.ljust(32, "f")),
    ).fetchall()
    if not rows:
        raise UsageError(
            "receipt_unknown",
            f"no receipt begins with {prefix}",
            cure="list the newest with tidegate receipts; a receipt appears within a second",
        )
    if len(rows) > 1:
        raise UsageError(
            "receipt_ambiguous",
            f"several receipts begin with {prefix}",
            cure="give more digits of the id",
        )
    row = rows[0]
    return Kept(
        receipt=_receipt(row),
        request_sha=row[29].hex() if row[29] else None,
        response_sha=row[30].hex() if row[30] else None,
        request=_content(connection, row[29]),
        response=_content(connection, row[30]),
    )


def _conditions(wanted: ReceiptFilter, now: float) -> tuple[list[str], dict[str, object]]:
    conditions, values = [], {}
    for name in ("route", "journey", "tenant", "model", "outcome", "code", "trace"):
        value = getattr(wanted, name)
        if value is not None:
            conditions.append(f"{name} = %({name})s")
            values[name] = value
    if wanted.provider_key is not None:
        conditions.append("attempts @> jsonb_build_array(jsonb_build_object('key', %(by)s::text))")
        values["by"] = wanted.provider_key
    if wanted.since is not None:
        conditions.append("at >= to_timestamp(%(since)s)")
        values["since"] = now - wanted.since
    if wanted.status is not None:
        low, high = _status_range(wanted.status)
        conditions.append("status BETWEEN %(low)s AND %(high)s")
        values |= {"low": low, "high": high}
    return conditions, values


def _status_range(text: str) -> tuple[int, int]:
    status = text.strip().lower()
    if not _STATUS.fullmatch(status):
        raise UsageError(
            "status_invalid", f"{text!r} is not an HTTP status", cure="write 404, or 4xx"
        )
    if status.endswith("xx"):
        return int(status[0]) * 100, int(status[0]) * 100 + 99
    return int(status), int(status)


def _content(connection: Connection, sha: bytes | None) -> str | None:
    if sha is None:
        return None
    row = connection.execute(
        "SELECT body FROM content WHERE sha256 = %s ORDER BY day DESC LIMIT 1", (sha,)
    ).fetchone()
    return None if row is None else bytes(row[0]).decode("utf-8", "replace")


def _receipt(row: tuple[Any, ...]) -> Receipt:
    usage = None
    if row[14] is not None:
        usage = Usage(
            prompt=row[14],
            completion=row[15],
            cached=row[16],
            reasoning=row[17],
            estimated=row[18],
        )
    return Receipt(
        id=row[0],
        at=row[1],
        kind=row[2],
        status=row[3],
        outcome=row[4],
        release=row[5],
        route=row[6],
        journey=row[7],
        tenant=row[8],
        key=row[9],
        model=row[10],
        stream=row[11],
        code=row[12],
        finish=row[13],
        usage=usage,
        replayed=None if row[19] is None else msgspec.convert(row[19], Usage),
        cost=row[20],
        cache=row[21],
        stages=row[22],
        first_token=row[23],
        total=row[24],
        attempts=msgspec.convert(row[25] or (), tuple[Attempt, ...]),
        trace=row[26],
        parent=row[27],
        worker=row[28],
        queued=row[31],
        capped=row[32],
        served_by=row[33],
        variant=row[34],
        variant_reason=row[35],
    )
