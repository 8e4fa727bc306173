"""Calls made by hand: what a stage finds when a request reaches it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec

from tests.gateway.releases import sample_release
from tidegate.base.ids import new_id
from tidegate.gateway.call import Target, make_target
from tidegate.gateway.plan import Plan, compile_plans
from tidegate.gateway.values import Answer, Call
from tidegate.gateway.wire.openai import ChatHead
from tidegate.release.values import Release

ANSWER = Answer(
    body=b'{"choices":[]}', stream=False, model="small", finish="stop", complete=True, usage=None
)


def targets_of(release: Release) -> dict[str, Target]:
    return {
        name: make_target(model, model.base_url or "http://127.0.0.1:9/v1", None)
        for name, model in release.models.items()
    }


def plans_of(release: Release | None = None) -> dict[str, Plan]:
    release = release or sample_release("http://127.0.0.1:9/v1")
    return compile_plans(release, "sha256:" + "0" * 64, targets_of(release))


def chat_call(
    plan: Plan, *, tenant: str | None = "acme", seconds: float = 5.0, **body: Any
) -> Call:
    """A chat request at the door of ``render``: its fields are ``body``."""
    call = Call(new_id(), time.time(), time.perf_counter_ns())
    call.kind, call.plan, call.tenant = "chat", plan, tenant
    body = {"model": plan.route.name, "messages": [{"role": "user", "content": "hi"}], **body}
    call.body = msgspec.json.encode(body)
    call.head = msgspec.json.decode(call.body, type=ChatHead)
    call.fields = msgspec.json.decode(call.body, type=dict[str, msgspec.Raw])
    call.deadline = asyncio.get_running_loop().time() + seconds
    return call
