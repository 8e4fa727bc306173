"""A door is where and how one system is asked: address, path, headers and a body with a counter."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

COUNTER = "@counter@"
"""Stands in a body for the number of the request: 20 digits, so that the length is constant."""

DIGITS = 20

INPUTS = {"goal": "run ten kilometres without a break by the spring", "level": "regular"}
TEMPLATE = (
    "You are the coach of a fitness app. Answer with one JSON object that has the fields "
    "title, minutes and steps. Level of the user: {{ level }}. Goal: {{ goal }}. Keep it safe: "
    "name a warm-up, name when to stop, and send the user to a doctor when something hurts."
)
SYSTEM = TEMPLATE.replace("{{ level }}", INPUTS["level"]).replace("{{ goal }}", INPUTS["goal"])
QUESTION = (
    f"Plan {COUNTER}: I have three evenings a week, a park with hills nearby and old running "
    "shoes. Last year I ran five kilometres in 31 minutes. What shall I do on the first evening?"
)


def messages() -> list[dict[str, str]]:
    """What a peer is asked: the same text that Tidegate's route renders from its template."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]


@dataclass(frozen=True)
class Door:
    """``body`` holds COUNTER once."""

    port: int
    path: str
    body: str
    headers: dict[str, str] = field(default_factory=dict)

    def streamed(self, **change: Any) -> Door:
        """The same door, asked for a stream; ``change`` replaces members of the body."""
        body = {**json.loads(self.body), "stream": True, **change}
        return replace(self, body=json.dumps(body))

    def request(self) -> tuple[bytes, bytes]:
        """The raw HTTP/1.1 request before and after the counter's digits."""
        before, _, after = self.body.partition(COUNTER)
        if not after:
            raise ValueError("a door's body must hold the counter once")
        length = len(before.encode()) + DIGITS + len(after.encode())
        headers = {
            "host": f"127.0.0.1:{self.port}",
            "content-type": "application/json",
            "accept": "text/event-stream" if '"stream": true' in self.body else "application/json",
            **self.headers,
            "content-length": str(length),
        }
        head = f"POST {self.path} HTTP/1.1\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in headers.items()
        )
        return (head + "\r\n" + before).encode(), after.encode()


def openai_door(port: int, path: str, model: str, headers: dict[str, str] | None = None) -> Door:
    """The door of a peer that takes an OpenAI chat completion."""
    body = {"model": model, "messages": messages(), "temperature": 0, "max_tokens": 256}
    return Door(port, path, json.dumps(body), headers or {})
