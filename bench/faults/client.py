"""The client of every system: the official OpenAI package, asked as a user's program asks it.

A stream counts as a success when its iteration ends without an exception: that is all that such a
program looks at. Whether the text is whole is the judge's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai

from bench.faults.judge import Call

QUESTION = "Make me a plan for the next four weeks, in sixty words."


@dataclass(frozen=True, kw_only=True)
class Door:
    """How one system is asked for one scenario."""

    base_url: str
    model: str
    api_key: str = "none"
    headers: dict[str, str] = field(default_factory=dict)
    retries: int = 0
    """Of the client. A gateway is to do its own: its client does none."""
    timeout: float = 600.0
    """Of the client, for a response and for each silence. The package's own by default."""


@dataclass
class _Heard:
    """What came in so far; kept when the call ends badly."""

    text: list[str] = field(default_factory=list)
    models: dict[str, None] = field(default_factory=dict)
    tokens: int | None = None
    finish: str | None = None

    def usage(self, usage: Any) -> None:
        if usage is not None and usage.completion_tokens is not None:
            self.tokens = usage.completion_tokens


async def call(door: Door, *, stream: bool, limit: float, zero: float) -> Call:
    """One call, at most ``limit`` seconds; ``zero`` is the scenario's start on the monotonic
    clock."""
    heard, began = _Heard(), time.monotonic()
    ended, error = "success", ""
    client = openai.AsyncOpenAI(
        base_url=door.base_url,
        api_key=door.api_key,
        default_headers=door.headers,
        max_retries=door.retries,
        timeout=door.timeout,
    )
    try:
        async with asyncio.timeout(limit):
            await (_stream if stream else _whole)(client, door.model, heard)
    except TimeoutError:
        ended = "hang"
    except (openai.OpenAIError, httpx.HTTPError, ValueError) as problem:
        ended, error = "error", _words(problem)
    seconds = time.monotonic() - began
    with contextlib.suppress(Exception):
        await client.close()
    return Call(
        started=began - zero,
        seconds=seconds,
        ended=ended,  # type: ignore[arg-type]
        text="".join(heard.text),
        error=error,
        model=" ".join(heard.models),
        tokens=heard.tokens,
        finish=heard.finish,
    )


def _words(problem: Exception) -> str:
    told = " ".join(str(problem).split()) or type(problem).__name__
    return told if len(told) < 300 else told[:297] + "..."


async def _stream(client: openai.AsyncOpenAI, model: str, heard: _Heard) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model=model,
        messages=[{"role": "user", "content": QUESTION}],
        stream=True,
        stream_options={"include_usage": True},
    )
    _headers(raw.headers, heard)
    async for chunk in raw.parse():
        if chunk.model:
            heard.models[chunk.model] = None
        heard.usage(chunk.usage)
        for choice in chunk.choices or ():
            heard.text.append(choice.delta.content or "")
            heard.finish = choice.finish_reason or heard.finish


async def _whole(client: openai.AsyncOpenAI, model: str, heard: _Heard) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": QUESTION}]
    )
    _headers(raw.headers, heard)
    answer = raw.parse()
    heard.models[answer.model] = None
    heard.usage(answer.usage)
    for choice in answer.choices or ():
        heard.text.append(choice.message.content or "")
        heard.finish = choice.finish_reason


def _headers(headers: Any, heard: _Heard) -> None:
    for name, value in headers.items():
        if "model" in name.lower():
            heard.models[value] = None
