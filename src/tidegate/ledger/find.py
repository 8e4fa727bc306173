"""Find receipts: by filter, newest first, or one whole with its content."""

from __future__ import annotations

import re
import time

import msgspec

from tidegate.base import UsageError
from tidegate.ledger.columns import SELECTED, decode_row
from tidegate.ledger.partitions import Connection
from tidegate.ledger.receipts import Receipt

MOST = 1000
_STATUS = re.compile(r"[1-5](?:xx|\d\d)")
_PREFIX = re.compile(r"[0-9a-f]{8,32}")


class ReceiptFilter(msgspec.Struct, frozen=True, kw_only=True):
    """None leaves a field open. ``since``: seconds back from now. ``status``: 404 or 4xx.
    ``provider_key``: the fingerprint of a provider's key that any attempt used."""

    release: str | None = None
    """A digest, or how one begins."""
    variant: str | None = None
    purpose: str | None = None
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
    """A receipt with its content; ``request`` and ``response`` are None when none was kept
    (``request_sha`` is None too), or its retention is over."""

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
    query = f"SELECT {SELECTED} FROM receipts {where}ORDER BY id DESC LIMIT %(limit)s"
    rows = connection.execute(query.encode(), {**values, "limit": wanted.limit}).fetchall()
    return [decode_row(row) for row in rows]


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
        f"SELECT {SELECTED}, request_sha, response_sha FROM receipts "
        "WHERE id >= %s::uuid AND id <= %s::uuid "
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
        receipt=decode_row(row),
        request_sha=row[-2].hex() if row[-2] else None,
        response_sha=row[-1].hex() if row[-1] else None,
        request=_content(connection, row[-2]),
        response=_content(connection, row[-1]),
    )


_EQUAL = ("variant", "purpose", "route", "journey", "tenant", "model", "outcome", "code", "trace")


def digest_prefix(text: str) -> str:
    """How the digests begin that ``text`` may mean: with or without ``sha256:``."""
    return text if text.startswith("sha256:") else f"sha256:{text}"


def _conditions(wanted: ReceiptFilter, now: float) -> tuple[list[str], dict[str, object]]:
    conditions, values = [], {}
    for name in _EQUAL:
        value = getattr(wanted, name)
        if value is not None:
            conditions.append(f"{name} = %({name})s")
            values[name] = value
    if wanted.release is not None:
        conditions.append("starts_with(release, %(release)s)")
        values["release"] = digest_prefix(wanted.release)
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
