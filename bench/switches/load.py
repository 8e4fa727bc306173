"""Load beside the flips: so many requests a second, plain and streamed, whatever they bring."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx

_CONCURRENT = 100


class Load:
    """Sends until it is cancelled; ``answers`` counts statuses, and streams that were not whole."""

    def __init__(self, url: str, key: str, rate: float) -> None:
        self.answers: Counter[str] = Counter()
        self._url, self._rate = url, rate
        self._auth = {"authorization": f"Bearer {key}"}
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        at, number = loop.time(), 0
        async with httpx.AsyncClient(base_url=self._url, timeout=20) as client:
            try:
                while True:
                    at = max(at + 1 / self._rate, loop.time() - 0.5)
                    await asyncio.sleep(max(0.0, at - loop.time()))
                    if len(self._under_way) < _CONCURRENT:
                        number += 1
                        task = asyncio.create_task(self._one(client, number))
                        self._under_way.add(task)
                        task.add_done_callback(self._under_way.discard)
            finally:
                await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _one(self, client: httpx.AsyncClient, number: int) -> None:
        stream = number % 3 == 0
        messages = [{"role": "user", "content": f"question {number}"}]
        body = {"model": "ask", "messages": messages, "stream": stream}
        try:
            answer = await client.post("/v1/chat/completions", json=body, headers=self._auth)
        except httpx.HTTPError as error:
            self.answers[type(error).__name__] += 1
            return
        whole = not stream or answer.text.endswith("data: [DONE]\n\n")
        self.answers[str(answer.status_code) if whole else "truncated"] += 1


async def statuses(url: str, key: str, model: str, count: int) -> Counter[int]:
    """What ``count`` requests for ``model`` are answered with, each on a connection of its own, so
    that the system chooses a worker for each."""

    async def one() -> int:
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:
            body = {"model": model, "messages": [{"role": "user", "content": "still there?"}]}
            headers = {"authorization": f"Bearer {key}"}
            return (
                await client.post("/v1/chat/completions", json=body, headers=headers)
            ).status_code

    return Counter(await asyncio.gather(*(one() for _ in range(count))))
