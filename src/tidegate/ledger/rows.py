"""Receipts as lines of PostgreSQL's COPY text format.

Strings come from clients, so they are escaped, and NUL, which PostgreSQL cannot hold, becomes
U+FFFD. The columns are those of ``RECEIPT_COLUMNS``, in that order.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from tidegate.ledger.receipts import Receipt

RECEIPT_COLUMNS = (
    "id, at, kind, status, outcome, release, route, journey, tenant, key, model, stream, code, "
    "finish, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, estimated, "
    "replayed, cost, cache, stages, first_token, total, attempts, trace, parent, worker, "
    "request_sha, response_sha"
)
CONTENT_COLUMNS = "sha256, day, body"

_NULL = "\\N"
_SPECIAL = re.compile(r"[\\\t\n\r\x00]")
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\x00": "\ufffd"}
_MEMO_SIZE = 4096
_memo: dict[str | None, str] = {None: _NULL}
_json = msgspec.json.Encoder()
_UTC = UTC


def escape(text: str) -> str:
    """``text`` as one field of a COPY line."""
    return _SPECIAL.sub(lambda match: _ESCAPES[match[0]], text)


def _text(value: str | None) -> str:
    """Like ``escape``, remembered: routes, models and outcomes repeat in every line."""
    known = _memo.get(value)
    if known is None:
        assert value is not None
        known = escape(value)
        if len(_memo) < _MEMO_SIZE:
            _memo[value] = known
    return known


def json_field(value: Any) -> str:
    """``value`` as jsonb in a COPY line."""
    text = _json.encode(value).decode()
    return text.replace("\\u0000", "\\ufffd").replace("\\", "\\\\") if "\\" in text else text


def binary_field(data: bytes | None) -> str:
    """``data`` as bytea in a COPY line."""
    return _NULL if data is None else "\\\\x" + data.hex()


def receipt_line(receipt: Receipt, request_sha: bytes | None, response_sha: bytes | None) -> str:
    """One line without its line end. Raises ValueError or OverflowError for an ``at`` that is no
    time."""
    r, usage = receipt, receipt.usage
    tokens = (
        "\\N\t\\N\t\\N\t\\N\t\\N"
        if usage is None
        else f"{usage.prompt}\t{usage.completion}\t{usage.cached}\t{usage.reasoning}"
        f"\t{'t' if usage.estimated else 'f'}"
    )
    return (
        f"{_text_id(r.id)}\t{day_time(r.at).isoformat()}\t{_text(r.kind)}\t{r.status}\t{r.outcome}\t"
        f"{_text(r.release)}\t{_text(r.route)}\t{_text(r.journey)}\t{_text(r.tenant)}\t"
        f"{_text(r.key)}\t{_text(r.model)}\t{'t' if r.stream else 'f'}\t{_text(r.code)}\t"
        f"{_text(r.finish)}\t{tokens}\t"
        f"{_NULL if r.replayed is None else json_field(r.replayed)}\t"
        f"{_NULL if r.cost is None else r.cost}\t{r.cache}\t{json_field(r.stages)}\t"
        f"{_NULL if r.first_token is None else r.first_token}\t{r.total}\t"
        f"{json_field(r.attempts) if r.attempts else _NULL}\t"
        f"{_NULL if r.trace is None else escape(r.trace)}\t"
        f"{_NULL if r.parent is None else escape(r.parent)}\t{r.worker}\t"
        f"{binary_field(request_sha)}\t{binary_field(response_sha)}"
    )


def content_line(digest: bytes, day: str, body: bytes) -> str:
    """``day`` is YYYY-MM-DD, in UTC."""
    return f"{binary_field(digest)}\t{day}\t{binary_field(body)}"


def day_time(at: float) -> datetime:
    """``at`` (seconds since the epoch) in UTC."""
    return datetime.fromtimestamp(at, _UTC)


_HEX_ID = re.compile(r"[0-9a-f]{32}\Z")


def _text_id(value: str) -> str:
    if not _HEX_ID.match(value):
        raise ValueError("the id is not 32 hex digits")
    return value
