"""Whatever Valkey holds under the name of an answer: an answer, or none."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.budget import fuzz
from tests.fuzz.inputs import broken_bytes
from tests.gateway.calls import ANSWER, chat_request, plans_of
from tests.gateway.loops import run
from tests.gateway.releases import sample_release
from tidegate.base.money import Usage
from tidegate.gateway.cache import ExactCache
from tidegate.gateway.values import Answer
from tidegate.stores.leases import ENTRY

FULL = msgspec.structs.replace(
    ANSWER, stored_at=1.0, content="hi", usage=Usage(prompt=3, completion=1, cached=1)
)
KEPT = [msgspec.msgpack.encode(one) for one in (ANSWER, FULL)]
TOKENS = [b"\xff", b"\xc1", b"\xdd\xff\xff\xff\xff", b"\x91" * 3000, b"\x80", b"\xa1\xff", b"\xc0"]
VALUES = st.one_of(broken_bytes(KEPT, TOKENS), st.binary(max_size=40))


class Holds:
    """A store in which every name holds the same."""

    def __init__(self, value: bytes) -> None:
        self.value = value

    def call(self, *command: Any) -> asyncio.Future[bytes]:
        reply = asyncio.get_running_loop().create_future()
        reply.set_result(self.value)
        return reply

    def send(self, *command: Any) -> None: ...


RELEASE = sample_release("http://127.0.0.1:9/v1")
PLAN = plans_of(
    msgspec.structs.replace(
        RELEASE,
        routes={"plan": msgspec.structs.replace(RELEASE.routes["plan"], stale=60.0)},
        journeys={},
    )
)["plan"]


@fuzz(300)
@given(value=VALUES)
def test_any_kept_answer_is_one_or_a_miss(value: bytes) -> None:
    async def main() -> None:
        cache = ExactCache(Holds(ENTRY + value))  # type: ignore[arg-type]
        request = chat_request(PLAN)
        known = cache.at_hand(request, request.ask, None)
        assert known.answer is None
        found = await cache.look(request, known)
        assert isinstance(found.answer, Answer) == (found.flight is None)
        if found.flight is not None:
            cache.leave(found.flight)

    run(main())


@fuzz(300)
@given(value=VALUES)
def test_any_remembered_answer_is_one_or_none(value: bytes) -> None:
    async def main() -> None:
        cache = ExactCache(Holds(value))  # type: ignore[arg-type]
        request = chat_request(PLAN)
        known = cache.at_hand(request, request.ask, None)
        assert known.key is not None
        found = await cache.recall(request, known.key)
        assert found is None or isinstance(found, Answer)

    run(main())
