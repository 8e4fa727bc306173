"""Workouts in PostgreSQL: what they are, and which are nearest to a wish (pgvector, cosine)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from psycopg.types.json import Json
from psycopg_pool import AsyncConnectionPool

LEVELS = ("beginner", "regular", "athlete")
Embed = Callable[[list[str]], Awaitable[list[list[float]]]]

_TABLES = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE SCHEMA IF NOT EXISTS fitness;
CREATE TABLE IF NOT EXISTS fitness.workouts (
    id text PRIMARY KEY, name text NOT NULL, level text NOT NULL, minutes integer NOT NULL,
    needs text NOT NULL, how text NOT NULL, source text NOT NULL, embedding vector NOT NULL
);
CREATE TABLE IF NOT EXISTS fitness.answers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(),
    journey text NOT NULL, asked jsonb NOT NULL, said text NOT NULL
);
"""
_SEED_LOCK = 0x66697431
"""Advisory lock: two processes that start at once seed once."""


@dataclass(frozen=True)
class Workout:
    id: str
    name: str
    level: str
    minutes: int
    needs: str
    how: str

    def sentence(self) -> str:
        return f"{self.name}: {self.how}"


def read_workouts(file: Path) -> tuple[list[Workout], str]:
    """The workouts of a JSON Lines file, and the sha256 that tells whether it has changed."""
    text = file.read_text()
    rows = [Workout(**json.loads(line)) for line in text.splitlines()]
    return rows, hashlib.sha256(text.encode()).hexdigest()


def vector_text(values: Sequence[float]) -> str:
    return "[" + ",".join(f"{value:.7g}" for value in values) + "]"


class WorkoutStore:
    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._pool = pool

    async def seed(self, file: Path, embed: Embed) -> int:
        """Put the file's workouts in, once for each content of the file; how many were put in."""
        workouts, source = read_workouts(file)
        async with self._pool.connection() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_SEED_LOCK])
            await connection.execute(_TABLES)
            counted = await connection.execute(
                "SELECT count(*) FROM fitness.workouts WHERE source = %s", [source]
            )
            row = await counted.fetchone()
            if row is not None and row[0] == len(workouts):
                return 0
            vectors = await embed([f"{w.sentence()} ({w.level})" for w in workouts])
            await connection.execute("DELETE FROM fitness.workouts")
            async with connection.cursor() as cursor:
                await cursor.executemany(
                    "INSERT INTO fitness.workouts VALUES (%s, %s, %s, %s, %s, %s, %s, %s::vector)",
                    [
                        (w.id, w.name, w.level, w.minutes, w.needs, w.how, source, vector_text(v))
                        for w, v in zip(workouts, vectors, strict=True)
                    ],
                )
            return len(workouts)

    async def nearest(
        self, vector: Sequence[float], *, levels: Sequence[str], minutes: int, limit: int
    ) -> list[Workout]:
        """The ``limit`` workouts nearest to ``vector`` that a user of ``levels`` has time for."""
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT id, name, level, minutes, needs, how FROM fitness.workouts"
                " WHERE level = ANY(%s) AND minutes <= %s"
                " ORDER BY embedding <=> %s::vector, id LIMIT %s",
                [list(levels), minutes, vector_text(vector), limit],
            )
            return [Workout(*row) for row in await found.fetchall()]

    async def keep(self, journey: str, asked: dict[str, object], said: str) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(
                "INSERT INTO fitness.answers (journey, asked, said) VALUES (%s, %s, %s)",
                [journey, Json(asked), said],
            )
