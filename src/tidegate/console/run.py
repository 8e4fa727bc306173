"""The operator's door as one ASGI app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tidegate.base import RequestError
from tidegate.console.api import Api, with_errors
from tidegate.console.door import OperatorAuth, RuntimeFile, refusal
from tidegate.console.traces import SpanInbox, receive_traces
from tidegate.ledger import SPANS


def make_app(state: Path, inbox: SpanInbox | None = None) -> Starlette:
    """The door of the app whose state folder is ``state``."""
    runtime = RuntimeFile(state)
    spans = inbox or SpanInbox(state / SPANS)
    api = Api(state, runtime)

    async def traces(request: Request) -> Response:
        return await receive_traces(request, spans)

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        tending = asyncio.create_task(spans.tend())
        try:
            yield
        finally:
            tending.cancel()
            with suppress(asyncio.CancelledError):
                await tending

    return Starlette(
        routes=[
            Route("/health", with_errors(api.health)),
            Route("/v1/traces", traces, methods=["POST"]),
            Route("/api/profile", with_errors(api.profile)),
            Route("/api/health", with_errors(api.release_health)),
            Route("/api/receipts", with_errors(api.receipts)),
            Route("/api/receipts/{id}", with_errors(api.receipt)),
            Route("/metrics", with_errors(api.metrics)),
        ],
        middleware=[Middleware(OperatorAuth, runtime=runtime)],
        exception_handlers={404: _not_found, 405: _not_allowed},
        lifespan=life,
    )


async def _not_found(request: Request, error: Exception) -> Response:
    return refusal(
        RequestError(
            404,
            "path_unknown",
            f"the operator's door has no {request.url.path}",
            cure="use /api/profile, /api/health, /api/receipts, /metrics, /health or "
            "POST /v1/traces",
        )
    )


async def _not_allowed(request: Request, error: Exception) -> Response:
    return refusal(
        RequestError(
            405,
            "method_not_allowed",
            f"{request.url.path} does not take {request.method}",
            cure="POST spans to /v1/traces; GET everything else",
        )
    )
