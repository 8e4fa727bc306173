from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from opentelemetry import baggage, trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.sdk.conftest import Door, attributes
from tidegate import sdk
from tidegate.sdk import journey, stage

pytestmark = pytest.mark.usefixtures("started")


def nothing_is_left_open() -> bool:
    return not trace.get_current_span().get_span_context().is_valid and not baggage.get_all()


def is_child(span: Span, parent: Span) -> bool:
    return span.parent_span_id == parent.span_id and span.trace_id == parent.trace_id


def test_a_journey_holds_its_stages(door: Door) -> None:
    with journey("get-plan", {"level": "beginner"}):
        assert baggage.get_baggage("tidegate.journey") == "get-plan"
        with stage("retrieval"), stage("database") as span:
            span.set_attribute("rows", "4")
    assert nothing_is_left_open()

    root, outer, inner = (door.one(name) for name in ("get-plan", "retrieval", "database"))
    assert attributes(root) == {"tidegate.journey": "get-plan", "level": "beginner"}
    assert attributes(outer) == {"tidegate.stage": "retrieval"}
    assert attributes(inner) == {"tidegate.stage": "database", "rows": "4"}
    assert not root.parent_span_id
    assert is_child(outer, root)
    assert is_child(inner, outer)
    assert root.start_time_unix_nano <= inner.start_time_unix_nano
    assert inner.end_time_unix_nano <= root.end_time_unix_nano


def test_an_exception_is_recorded_and_goes_on(door: Door) -> None:
    with pytest.raises(ZeroDivisionError), journey("failing"), stage("tools"):
        _ = 1 / 0
    assert nothing_is_left_open()
    for name in ("failing", "tools"):
        span = door.one(name)
        assert span.status.code == Status.STATUS_CODE_ERROR
        assert span.status.message == "ZeroDivisionError: division by zero"
        assert [event.name for event in span.events] == ["exception"]


def test_functions(door: Door) -> None:
    @stage("prompt")
    def build(goal: str, *, level: str) -> str:
        """Build it."""
        return f"{goal} {level}"

    @journey("sync-journey")
    def run() -> list[str]:
        return [build("a", level="b"), build("c", level="d")]

    assert run() == ["a b", "c d"]
    assert build.__name__ == "build"
    assert build.__doc__ == "Build it."
    root = door.one("sync-journey")
    assert all(is_child(span, root) for span in door.named("prompt"))
    assert len(door.named("prompt")) == 2


def test_coroutines_at_the_same_time_do_not_mix(door: Door) -> None:
    @stage("model")
    async def ask(number: int) -> int:
        await asyncio.sleep(0.002 * (5 - number))
        return number

    async def one(number: int) -> int:
        async with journey(f"parallel-{number}"):
            return await ask(number)

    async def main() -> list[int]:
        return await asyncio.gather(*(one(n) for n in range(5)))

    assert asyncio.run(main()) == [0, 1, 2, 3, 4]
    for number in range(5):
        root = door.one(f"parallel-{number}")
        assert len([s for s in door.named("model") if is_child(s, root)]) == 1


def test_a_failing_coroutine(door: Door) -> None:
    @journey("async-failing")
    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        asyncio.run(fail())
    assert door.one("async-failing").status.code == Status.STATUS_CODE_ERROR


def test_a_cancelled_block_is_not_an_error(door: Door) -> None:
    async def main() -> None:
        async with journey("cancelled"):
            await asyncio.sleep(30)

    async def cancel() -> None:
        task = asyncio.create_task(main())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    span = door.one("cancelled")
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert attributes(span)["tidegate.cancelled"] is True


@journey("stream")
async def streamed() -> AsyncIterator[str]:
    with stage("model"):
        yield "a"
        await asyncio.sleep(0)
        with stage("inside"):
            yield "b"
    yield "c"


def test_a_stream_is_open_from_first_item_to_last_and_only_inside(door: Door) -> None:
    async def main() -> None:
        items = []
        async for item in streamed():
            assert nothing_is_left_open()
            items.append(item)
        assert items == ["a", "b", "c"]

    asyncio.run(main())
    root, model, inside = (door.one(name) for name in ("stream", "model", "inside"))
    assert is_child(model, root)
    assert is_child(inside, model)


def test_an_abandoned_stream_is_closed_quietly(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        stream = streamed()
        await anext(stream)
        await anext(stream)
        # from another context, as a web framework does when the client leaves
        await asyncio.create_task(stream.aclose(), context=contextvars.Context())

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    for name in ("stream", "model", "inside"):
        assert attributes(door.one(name))["tidegate.cancelled"] is True
    assert not caplog.records


def test_a_stream_that_breaks(door: Door) -> None:
    @journey("broken-stream")
    async def broken() -> AsyncIterator[str]:
        yield "a"
        raise ConnectionError("cut")

    async def main() -> None:
        with pytest.raises(ConnectionError):
            async for _ in broken():
                pass

    asyncio.run(main())
    assert door.one("broken-stream").status.message == "ConnectionError: cut"


def test_a_stream_sees_what_its_consumer_throws() -> None:
    @stage("rendering")
    async def patient() -> AsyncIterator[str]:
        try:
            yield "a"
        except LookupError:
            yield "b"

    async def main() -> list[str]:
        stream = patient()
        first = await anext(stream)
        return [first, await stream.athrow(LookupError("x"))]  # type: ignore[attr-defined]

    assert asyncio.run(main()) == ["a", "b"]


def test_a_generator_may_be_consumed_by_many_threads(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    @journey("threads")
    def numbers() -> Iterator[int]:
        with stage("rendering"):
            yield 1
            yield 2

    stream, items = numbers(), []
    for _ in range(3):
        thread = threading.Thread(target=lambda: items.append(next(stream, None)))
        thread.start()
        thread.join()
    assert items == [1, 2, None]
    assert is_child(door.one("rendering"), door.one("threads"))
    assert not caplog.records


def test_a_generator_gets_values_and_returns_one(door: Door) -> None:
    @stage("echo")
    def echo() -> Iterator[int]:
        got = yield 0
        return (yield got) * 2

    stream = echo()
    assert next(stream) == 0
    assert stream.send(5) == 5  # type: ignore[attr-defined]
    with pytest.raises(StopIteration) as end:
        stream.send(6)  # type: ignore[attr-defined]
    assert end.value.value == 12
    door.one("echo")


def test_names_need_no_start(door: Door) -> None:
    sdk.shutdown()
    with journey("not-recorded"), stage("model"):
        pass
    sdk.start(door.url, token=door.token)
    with journey("recorded"):
        pass
    door.one("recorded")
    assert not door.named("not-recorded")
