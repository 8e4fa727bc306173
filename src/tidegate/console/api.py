"""The API over the ledger: what the commands show, as JSON over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast, get_args

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from tidegate.base import StoreError, TidegateError, UsageError, parse_duration
from tidegate.console.door import RuntimeFile, refusal
from tidegate.console.metrics import (
    read_totals,
    render_ledger,
    render_totals,
    render_workers,
    text_of,
)
from tidegate.ledger import (
    Purpose,
    ReceiptFilter,
    find_receipts,
    health,
    is_fresh,
    one_receipt,
    profile,
    read_gauges,
    read_status,
    reading,
)

_Handler = Callable[[Request], Response]
_FILTERS = (
    "release",
    "variant",
    "purpose",
    "route",
    "journey",
    "tenant",
    "model",
    "outcome",
    "code",
    "trace",
    "provider_key",
    "status",
)


class Api:
    """Handlers of GET requests. Each opens its own connection: operators ask seldom."""

    def __init__(self, state: Path, runtime: RuntimeFile) -> None:
        self._state = state
        self._runtime = runtime

    def health(self, request: Request) -> Response:
        """200 while this process serves; what is degraded is in the body."""
        status = read_status(self._state)
        degraded = status is not None and (status.degraded is not None or not is_fresh(status))
        return _json({"status": "degraded" if degraded else "ok", "ledger_degraded": degraded})

    def profile(self, request: Request) -> Response:
        query = request.query_params
        window = _seconds(query.get("window", "15m"), "window")
        with reading(self._runtime().database_url) as connection:
            return _json(
                profile(
                    connection,
                    window,
                    journey=query.get("journey"),
                    route=query.get("route"),
                    release=query.get("release"),
                    variant=query.get("variant"),
                    purpose=_purpose(query),
                )
            )

    def release_health(self, request: Request) -> Response:
        """Health of a release, route or journey (see ``ledger.health``)."""
        query = request.query_params
        window = _seconds(query.get("window", "15m"), "window")
        with reading(self._runtime().database_url) as connection:
            return _json(
                health(
                    connection,
                    window,
                    journey=query.get("journey"),
                    route=query.get("route"),
                    release=query.get("release"),
                    variant=query.get("variant"),
                    purpose=_purpose(query),
                )
            )

    def receipts(self, request: Request) -> Response:
        query = request.query_params
        since = query.get("since")
        wanted = ReceiptFilter(
            since=None if since is None else _seconds(since, "since"),
            limit=_whole(query.get("limit", "20"), "limit"),
            **{name: query.get(name) for name in _FILTERS},
        )
        with reading(self._runtime().database_url) as connection:
            return _json({"receipts": find_receipts(connection, wanted)})

    def receipt(self, request: Request) -> Response:
        with reading(self._runtime().database_url) as connection:
            kept = one_receipt(connection, request.path_params["id"])
        if request.query_params.get("content") not in ("1", "true"):
            kept = msgspec.structs.replace(kept, request=None, response=None)
        return _json(kept)

    def metrics(self, request: Request) -> Response:
        """Always 200: while PostgreSQL is unreachable, what it would show is left out."""
        try:
            with reading(self._runtime().database_url, timeout=5.0) as connection:
                lines, answers = list(render_totals(read_totals(connection))), True
        except StoreError:
            lines, answers = [], False
        lines += render_ledger(self._state, read_status(self._state), answers)
        lines += render_workers(read_gauges(self._state / "run"))
        return PlainTextResponse(text_of(lines), media_type="text/plain; version=0.0.4")


def with_errors(handler: _Handler) -> _Handler:
    """A handler whose errors become JSON responses with code and cure."""

    def handle(request: Request) -> Response:
        try:
            return handler(request)
        except TidegateError as error:
            return refusal(error)

    return handle


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _purpose(query: QueryParams) -> Purpose:
    asked = query.get("purpose", "user")
    for known in get_args(Purpose):
        if asked == known:
            return cast(Purpose, known)
    raise UsageError(
        "purpose_unknown",
        f"purpose: {asked[:40]!r} is none",
        cure=f"write one of {', '.join(get_args(Purpose))}",
    )


def _seconds(text: str, name: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(
            "window_invalid", f"{name}: {error}", cure=f"write for example {name}=15m"
        ) from None


def _whole(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise UsageError("limit_invalid", f"{name}: {text!r} is no number", cure=f"write {name}=20")
    return int(text)
