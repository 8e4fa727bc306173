"""Bounded open-loop traffic: each request at its own time, whatever became of those before it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable

import httpx

MIX = {
    "miss": 24,
    "hit": 18,
    "stream": 20,
    "stream_left": 8,
    "held": 6,
    "left_early": 5,
    "embeddings": 6,
    "again": 6,
    "bad": 7,
}
"""Kinds of requests and their share of the traffic."""
_CONCURRENT = 200
"""Most requests under way: one more is counted as skipped, so that the load stays bounded."""


class Tally:
    """What was sent, and what came: statuses by kind."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.odd: Counter[str] = Counter()
        """Answers that no fault explains."""
        self.skipped = 0


class Traffic:
    """Sends ``rate`` requests a second until told to stop. Deterministic in kinds by ``seed``."""

    def __init__(self, url: str, key: str, rate: float, seed: int) -> None:
        self.tally = Tally()
        self._url, self._rate = url, rate
        self._draw = random.Random(seed)
        self._auth = {"authorization": f"Bearer {key}"}
        self._under_way: set[asyncio.Task[None]] = set()
        self._count = 0

    async def run(self, seconds: float, tell: Callable[[], None]) -> None:
        """Send for ``seconds``; ``tell`` is called once a second. Waits for the last answers."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        loop = asyncio.get_running_loop()
        async with httpx.AsyncClient(base_url=self._url, timeout=15, limits=limits) as client:
            start = at = told = loop.time()
            while at < start + seconds:
                at += self._draw.expovariate(self._rate)
                await asyncio.sleep(max(0.0, at - loop.time()))
                self._send(client)
                if loop.time() - told > 1:
                    told = loop.time()
                    tell()
            if self._under_way:
                await asyncio.wait(self._under_way, timeout=20)

    def _send(self, client: httpx.AsyncClient) -> None:
        if len(self._under_way) >= _CONCURRENT:
            self.tally.skipped += 1
            return
        (kind,) = self._draw.choices(list(MIX), list(MIX.values()))
        self._count += 1
        task = asyncio.create_task(self._one(client, kind, self._count))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        if kind == "left_early":
            asyncio.get_running_loop().call_later(self._draw.uniform(0.001, 0.08), task.cancel)

    async def _one(self, client: httpx.AsyncClient, kind: str, number: int) -> None:
        self.tally.sent[kind] += 1
        try:
            status = await self._ask(client, kind, number)
        except asyncio.CancelledError:
            status = "left"
        except httpx.HTTPError as error:
            status = type(error).__name__
        self.tally.answers[f"{kind} {status}"] += 1
        if status not in EXPECTED[kind]:
            self.tally.odd[f"{kind} {status}"] += 1

    async def _ask(self, client: httpx.AsyncClient, kind: str, number: int) -> str:
        path, headers = "/v1/chat/completions", dict(self._auth)
        words = f"question {number}"
        body: dict[str, object] = {"model": "ask"}
        match kind:
            case "hit":
                words = f"frequent question {number % 5}"
            case "stream" | "stream_left":
                body |= {"model": "talk", "stream": True}
            case "held":
                body |= {"model": "held", "stream": True}
            case "again":
                headers["idempotency-key"] = f"key-{number // 40}"
                words = f"payment {number // 40}"
                body["model"] = "talk"
            case "embeddings":
                path = "/v1/embeddings"
                body = {"model": "embed", "input": f"text {number % 50}"}
            case "bad":
                return await self._bad(client, number)
        if path.endswith("completions"):
            body["messages"] = [{"role": "user", "content": words}]
        if not body.get("stream"):
            return str((await client.post(path, json=body, headers=headers)).status_code)
        async with client.stream("POST", path, json=body, headers=headers) as answer:
            if answer.status_code != 200:
                return str(answer.status_code)
            last = ""
            lines = 0
            async for line in answer.aiter_lines():
                last = line or last
                lines += 1
                if kind == "stream_left" and lines > 4:
                    return "left"
        if last == "data: [DONE]":
            return "200"
        return "error event" if '"error"' in last else "truncated"

    async def _bad(self, client: httpx.AsyncClient, number: int) -> str:
        path = "/v1/chat/completions"
        match number % 4:
            case 0:
                answer = await client.post(path, content=b'{"model": ', headers=self._auth)
            case 1:
                answer = await client.post(path, json={"model": "nothing"}, headers=self._auth)
            case 2:
                answer = await client.post(path, json={}, headers={"authorization": "Bearer no"})
            case _:
                answer = await client.get("/v1/nowhere", headers=self._auth)
        return str(answer.status_code)


_GONE = {"left", "200", "502", "504", "503", "429"}
EXPECTED: dict[str, set[str]] = {
    "miss": {"200", "502", "504", "503", "429"},
    "hit": {"200", "502", "504", "503", "429"},
    "stream": {"200", "error event", "502", "504", "503", "429"},
    "stream_left": {"left", "200", "error event", "502", "504", "503", "429"},
    "held": {"200", "502", "504", "503", "429"},
    "left_early": _GONE,
    "embeddings": {"200"},
    "again": {"200", "502", "504", "503", "429"},
    "bad": {"400", "401", "404"},
}
"""What each kind may be answered with, given the faults of the upstream. ``truncated`` (a stream
that ends like a success without being one) is never among them."""
