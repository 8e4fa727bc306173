"""Requests made by hand: what a stage is given when a request reaches it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec

from tests.gateway.releases import sample_release
from tidegate.base.ids import new_id
from tidegate.gateway.dialects.openai_chat import OpenAIChat
from tidegate.gateway.journal import Journal
from tidegate.gateway.plan import Plan, compile_plans
from tidegate.gateway.targets import Target, make_target
from tidegate.gateway.values import Answer, Caller, Request, Switched
from tidegate.release.values import Release

ANSWER = Answer(
    body=b'{"choices":[]}', stream=False, model="small", finish="stop", complete=True, usage=None
)
CHAT = OpenAIChat()


def targets_of(release: Release) -> dict[str, Target]:
    return {
        name: make_target(model, model.base_url or "http://127.0.0.1:9/v1", None)
        for name, model in release.models.items()
    }


def plans_of(release: Release | None = None) -> dict[str, Plan]:
    release = release or sample_release("http://127.0.0.1:9/v1")
    return compile_plans(release, "sha256:" + "0" * 64, targets_of(release))


def new_journal() -> Journal:
    return Journal(new_id(), time.time(), time.perf_counter_ns(), "chat")


def chat_request(
    plan: Plan,
    *,
    tenant: str | None = "acme",
    seconds: float = 5.0,
    switched: Switched | None = None,
    priority: int = 1,
    **body: Any,
) -> Request:
    """An admitted chat request, at the door of ``render``: its fields are ``body``."""
    body = {"model": plan.route.name, "messages": [{"role": "user", "content": "hi"}], **body}
    client = CHAT.parse(msgspec.json.encode(body))
    return Request(
        id=new_id(),
        at=time.time(),
        deadline=asyncio.get_running_loop().time() + seconds,
        dialect=CHAT,
        ask=client.ask,
        body_fields=client.body_fields,
        extension=client.extension,
        caller=Caller(None, tenant),
        plan=plan,
        switched=switched,
        priority=priority,
    )


def within(seconds: float = 5.0) -> float:
    """The deadline of a request that begins now."""
    return asyncio.get_running_loop().time() + seconds
