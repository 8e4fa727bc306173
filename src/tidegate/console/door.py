"""Who may come in, and how a refusal looks."""

from __future__ import annotations

import hmac
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tidegate.base import (
    RequestError,
    Runtime,
    RuntimeStateError,
    TidegateError,
    UsageError,
    read_runtime,
)

OPEN_PATHS = ("/health",)


class RuntimeFile:
    """The runtime of the app, read again when the file changed."""

    def __init__(self, state: Path) -> None:
        self._app = state.resolve().parent
        self._path = state / "run" / "runtime.json"
        self._known: tuple[tuple[int, int], Runtime] | None = None

    def __call__(self) -> Runtime:
        """RuntimeStateError: not_running, runtime_unreadable."""
        try:
            stat = self._path.stat()
            version = (stat.st_mtime_ns, stat.st_ino)
        except FileNotFoundError:
            version = (0, 0)
        if self._known is None or self._known[0] != version:
            self._known = (version, read_runtime(self._app))
        return self._known[1]


class OperatorAuth:
    """Lets a request in when it bears the operator token, compared in constant time."""

    def __init__(self, app: ASGIApp, runtime: RuntimeFile) -> None:
        self._app = app
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # there is none behind this door
            return
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        try:
            authorize(Request(scope).headers.get("authorization", ""), self._runtime())
        except (RequestError, RuntimeStateError) as error:
            await refusal(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def authorize(header: str, runtime: Runtime) -> None:
    """RequestError 401 ``operator_token_missing`` or ``operator_token_wrong``."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise RequestError(
            401,
            "operator_token_missing",
            "this door wants the operator token",
            cure="send authorization: Bearer <operator_token of .tidegate/run/runtime.json>",
        )
    if not runtime.operator_token or not hmac.compare_digest(
        token.strip().encode(), runtime.operator_token.encode()
    ):
        raise RequestError(
            401,
            "operator_token_wrong",
            "the operator token is not that of this app",
            cure="read operator_token in .tidegate/run/runtime.json of the app that runs here",
        )


_UNKNOWN = ("receipt_unknown", "journey_unknown", "route_unknown")


def status_of(error: TidegateError) -> int:
    """The HTTP status of ``error``."""
    if isinstance(error, RequestError):
        return error.status
    if isinstance(error, UsageError):
        return 404 if error.code in _UNKNOWN else 400
    return 503


def refusal(error: TidegateError) -> Response:
    """``error`` as JSON: code, message and cure."""
    status = status_of(error)
    headers = {"www-authenticate": "Bearer"} if status == 401 else {}
    if status == 503:
        headers["retry-after"] = "2"
    body = msgspec.json.encode({"error": error.to_json()})
    return Response(body, status, headers, media_type="application/json")
