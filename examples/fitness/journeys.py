"""The two journeys of the app, from first to last: each yields what the page shows next."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Literal, NamedTuple

from jinja2 import Environment
from openai import AsyncOpenAI

from examples.fitness.tools import run_tool
from examples.fitness.workouts import LEVELS, Workout, WorkoutStore
from tidegate.sdk import journey, stage


class Event(NamedTuple):
    """``text`` is appended to the answer; ``html`` is a rendered part of the page."""

    kind: Literal["html", "text", "done"]
    value: str


class Wish(NamedTuple):
    goal: str
    level: str
    minutes: int


class Journeys:
    def __init__(self, client: AsyncOpenAI, workouts: WorkoutStore, templates: Environment) -> None:
        self._client = client
        self._workouts = workouts
        self._templates = templates

    @journey("get-plan")
    async def get_plan(self, wish: Wish) -> AsyncIterator[Event]:
        """Workouts that fit the wish, then the plan in the coach's words."""
        levels = LEVELS[: LEVELS.index(wish.level) + 1]
        found = await self._retrieve(wish.goal, levels, wish.minutes, limit=3)
        yield Event("html", self._render("workouts.html", workouts=found))
        with stage("prompt"):
            inputs = {**wish._asdict(), "workouts": [workout.name for workout in found]}
        said = ""
        async for text in self._say("recommend", inputs):
            said += text
            yield Event("text", text)
        await self._keep("get-plan", wish._asdict(), said)
        yield Event("done", "")

    @journey("ask-coach")
    async def ask_coach(self, question: str) -> AsyncIterator[Event]:
        """A tool's answer, then the same in the coach's words."""
        found = await self._retrieve(question, LEVELS, 60, limit=1)
        picked = await self._pick_tool(question)
        with stage("tools"):
            fact = run_tool(picked, question, found)
        yield Event("html", self._render("fact.html", fact=fact))
        with stage("prompt"):
            inputs = {"question": question, "fact": fact.text}
        said = ""
        async for text in self._say("coach", inputs):
            said += text
            yield Event("text", text)
        await self._keep("ask-coach", {"question": question, "tool": fact.tool}, said)
        yield Event("done", "")

    async def embed(self, texts: list[str]) -> list[list[float]]:
        answer = await self._client.embeddings.create(model="embed", input=texts)
        return [item.embedding for item in answer.data]

    @stage("retrieval")
    async def _retrieve(
        self, text: str, levels: tuple[str, ...], minutes: int, *, limit: int
    ) -> list[Workout]:
        (vector,) = await self.embed([text])
        with stage("database"):
            return await self._workouts.nearest(vector, levels=levels, minutes=minutes, limit=limit)

    @stage("model")
    async def _pick_tool(self, question: str) -> str:
        # SmolLM2 cannot call tools; the route's output schema makes it name one instead.
        answer = await self._client.chat.completions.create(
            model="coach-tool",
            messages=[],
            temperature=0,
            extra_body={"tidegate": {"inputs": {"question": question}}},
        )
        return str(json.loads(answer.choices[0].message.content or "{}").get("tool", "search"))

    @stage("model")
    async def _say(self, route: str, inputs: Mapping[str, object]) -> AsyncIterator[str]:
        stream = await self._client.chat.completions.create(
            model=route,
            messages=[],  # the route's prompt is the message; these are its inputs
            temperature=0,
            stream=True,
            extra_body={"tidegate": {"inputs": inputs}},
        )
        async with stream:
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content

    @stage("rendering")
    def _render(self, template: str, **values: object) -> str:
        return self._templates.get_template(template).render(values)

    @stage("database")
    async def _keep(self, name: str, asked: dict[str, object], said: str) -> None:
        await self._workouts.keep(name, asked, said)
