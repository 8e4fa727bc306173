"""The web app: one page, and two answers that arrive piece by piece as JSON Lines."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai
import psycopg
from jinja2 import Environment, FileSystemLoader
from openai import AsyncOpenAI
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from examples.fitness.journeys import Event, Journeys, Wish
from examples.fitness.settings import FOLDER, Settings
from examples.fitness.workouts import LEVELS, WorkoutStore
from tidegate import sdk

log = logging.getLogger("fitness")
_SORRY = "The coach cannot answer right now. Please try again in a moment."


def make_app(settings: Settings) -> Starlette:
    templates = Environment(
        loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, enable_async=False
    )

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        sdk.start(settings.operator, service="fitness", gateway_url=settings.gateway_url)
        async with (
            AsyncOpenAI(
                base_url=f"{settings.gateway_url}/v1",
                api_key=settings.key,
                max_retries=1,
                timeout=60,
            ) as client,
            AsyncConnectionPool(
                settings.database_url,
                min_size=1,
                max_size=4,
                timeout=5,
                check=AsyncConnectionPool.check_connection,  # PostgreSQL may have been restarted
                open=False,
            ) as pool,
        ):
            store = WorkoutStore(pool)
            app.state.journeys = Journeys(client, store, templates)
            added = await store.seed(FOLDER / "data" / "workouts.jsonl", app.state.journeys.embed)
            log.info("%s workouts added to the collection", added or "no new")
            yield
        sdk.shutdown()

    async def page(request: Request) -> Response:
        return HTMLResponse(templates.get_template("page.html").render(levels=LEVELS))

    async def plan(request: Request) -> Response:
        body = await _body(request)
        goal, level, minutes = (body.get(name) for name in ("goal", "level", "minutes"))
        if not _is_text(goal, 120) or level not in LEVELS:
            return _refused("goal: 1 to 120 characters; level: " + ", ".join(LEVELS))
        if not isinstance(minutes, int) or not 5 <= minutes <= 90:
            return _refused("minutes: 5 to 90")
        return _stream(request.app.state.journeys.get_plan(Wish(str(goal).strip(), level, minutes)))

    async def ask(request: Request) -> Response:
        question = (await _body(request)).get("question")
        if not _is_text(question, 200):
            return _refused("question: 1 to 200 characters")
        return _stream(request.app.state.journeys.ask_coach(str(question).strip()))

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    routes = [
        Route("/", page),
        Route("/plan", plan, methods=["POST"]),
        Route("/ask", ask, methods=["POST"]),
        Route("/health", health),
        Mount("/static", StaticFiles(directory=FOLDER / "static")),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


async def _body(request: Request) -> dict[str, object]:
    try:
        body = json.loads(await request.body())
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _is_text(value: object, longest: int) -> bool:
    return isinstance(value, str) and 1 <= len(value.strip()) <= longest


def _refused(expected: str) -> Response:
    return JSONResponse({"error": f"expected {expected}"}, 422)


def _stream(events: AsyncIterator[Event]) -> Response:
    return StreamingResponse(_lines(events), media_type="application/x-ndjson")


async def _lines(events: AsyncIterator[Event]) -> AsyncIterator[str]:
    """One JSON object a line; an answer that breaks ends with an ``error``, never with ``done``."""
    try:
        async for event in events:
            yield json.dumps(event._asdict()) + "\n"
    except (openai.OpenAIError, psycopg.Error, PoolTimeout, ValueError) as error:
        log.warning("a journey failed: %s: %s", type(error).__name__, error)
        yield json.dumps({"kind": "error", "value": _SORRY}) + "\n"
