"""Places over several workers: never more than there are, none lost, the highest class first."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gateway.loops import run, soon, until
from tidegate.base.errors import RequestError
from tidegate.gateway.queue import run as queue_run
from tidegate.gateway.queue import slots
from tidegate.gateway.queue.run import QueuePlace, QueueStatistics, RouteQueue
from tidegate.gateway.queue.slots import Row, Slots
from tidegate.release.values import QueueSettings

HIGH, NORMAL, LOW = 0, 1, 2


class Workers:
    """The queues that several workers have of one route."""

    def __init__(self, folder: Path, count: int, settings: QueueSettings) -> None:
        self.rows = [Row(folder) for _ in range(count)]
        self.queues = [RouteQueue(Slots(row, "r"), "r", settings) for row in self.rows]

    def __enter__(self) -> list[RouteQueue]:
        return self.queues

    def __exit__(self, *_: object) -> None:
        for queue, row in zip(self.queues, self.rows, strict=True):
            queue.close()
            row.close()


def idle(queue: RouteQueue) -> bool:
    now: QueueStatistics = queue.statistics()
    return (now.in_use, now.waiting, queue.load()) == (0, 0, 0.0)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.integers(0, 2),
            st.integers(0, 6),
            st.integers(0, 12),
            st.booleans(),
        ),
        max_size=30,
    ),
    st.integers(1, 4),
    st.integers(0, 6),
)
def test_places_are_never_exceeded_and_all_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    requests: list[tuple[int, int, int, int, bool]],
    concurrent: int,
    waiting: int,
) -> None:
    """Requests (worker, class, start, length, leaves early) at random over three workers."""

    async def main() -> None:
        held = most = 0
        refused: list[RequestError] = []

        async def request(queue: RouteQueue, kind: int, start: int, length: int) -> None:
            nonlocal held, most
            await asyncio.sleep(start / 1000)
            try:
                place = await queue.enter(kind, 0.5)
            except RequestError as error:
                refused.append(error)
                return
            held += 1
            most = max(most, held)
            try:
                await asyncio.sleep(length / 1000)
            finally:
                held -= 1
                place.leave()
                place.leave()

        folder = tmp_path_factory.mktemp("q")
        with Workers(folder, 3, QueueSettings(concurrent=concurrent, waiting=waiting)) as queues:
            tasks = []
            for worker, kind, start, length, leaves in requests:
                tasks.append(asyncio.create_task(request(queues[worker], kind, start, length)))
                if leaves:
                    asyncio.get_running_loop().call_later(length / 1000, tasks[-1].cancel)
            await soon(asyncio.gather(*tasks, return_exceptions=True), 20)
            assert most <= concurrent
            assert {error.code for error in refused} <= {"queue_full", "overloaded"}
            assert all(error.status == 503 and error.retry_after for error in refused)
            assert all(idle(queue) for queue in queues)

    run(main())


@pytest.mark.parametrize("workers", [1, 2])
def test_the_highest_class_is_served_first_then_who_came_first(
    tmp_path: Path, workers: int
) -> None:
    async def main() -> None:
        with Workers(tmp_path, workers, QueueSettings(concurrent=1)) as queues:
            first = await queues[0].enter(NORMAL, 5)
            order: list[str] = []

            async def wait(name: str, queue: RouteQueue, kind: int) -> None:
                place = await queue.enter(kind, 5)
                order.append(name)
                place.leave()

            tasks = []
            for name, kind in (("l", LOW), ("n1", NORMAL), ("n2", NORMAL), ("h", HIGH)):
                queue = queues[len(tasks) % workers]
                tasks.append(asyncio.create_task(wait(name, queue, kind)))
                await asyncio.sleep(0.002)
            first.leave()
            await soon(asyncio.gather(*tasks))
            assert order == ["h", "n1", "n2", "l"]

    run(main())


@pytest.mark.parametrize("workers", [1, 2])
def test_the_lowest_class_makes_room_for_a_higher_one(tmp_path: Path, workers: int) -> None:
    async def main() -> None:
        with Workers(tmp_path, workers, QueueSettings(concurrent=1, waiting=2)) as queues:
            first = await queues[0].enter(NORMAL, 5)
            old = asyncio.create_task(queues[0].enter(LOW, 5))
            await asyncio.sleep(0.001)
            young = asyncio.create_task(queues[0].enter(LOW, 5))
            await asyncio.sleep(0.001)
            with pytest.raises(RequestError) as refused:
                await queues[-1].enter(LOW, 5)
            assert refused.value.code == "queue_full"
            high = asyncio.create_task(queues[-1].enter(HIGH, 5))
            with pytest.raises(RequestError, match="higher priority"):
                await soon(young)
            first.leave()
            (await soon(high)).leave()
            (await soon(old)).leave()
            assert all(idle(queue) for queue in queues)

    run(main())


def test_a_wait_that_would_be_too_long_is_refused_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        with Workers(tmp_path, 2, QueueSettings(concurrent=1, waiting=50)) as (one, two):
            place = await one.enter(NORMAL, 5)
            await asyncio.sleep(0.3)
            place.leave()  # now the other worker knows, too, how long one takes
            place = await one.enter(NORMAL, 5)
            with pytest.raises(RequestError, match="would be about") as late:
                await two.enter(NORMAL, 0.2)  # who had waited to find out is told "no place within"
            assert late.value.code == "overloaded"
            place.leave()

    run(main())


def test_a_model_that_hangs_is_seen_before_anything_ends(tmp_path: Path) -> None:
    async def main() -> None:
        with Workers(tmp_path, 2, QueueSettings(concurrent=2, waiting=50)) as (one, two):
            (await one.enter(NORMAL, 5)).leave()  # lately a request took no time at all
            places = [await one.enter(NORMAL, 5), await two.enter(NORMAL, 5)]
            await asyncio.sleep(0.4)
            with pytest.raises(RequestError, match="would be about") as late:
                await two.enter(NORMAL, 0.15)
            assert late.value.code == "overloaded"
            for place in places:
                place.leave()
            (await two.enter(NORMAL, 0.15)).leave()

    run(main())


def test_what_was_long_ago_predicts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (queue_run, slots):
        monkeypatch.setattr(module, "STALE", 0.1)

    async def main() -> None:
        with Workers(tmp_path, 2, QueueSettings(concurrent=1)) as (one, two):
            for queue in (one, two):
                await queue.enter(NORMAL, 5)
                queue.give_back(60.0)
            await asyncio.sleep(0.2)
            place = await one.enter(NORMAL, 5)
            waiting = asyncio.create_task(two.enter(NORMAL, 5))
            await asyncio.sleep(0.02)
            assert not waiting.done(), "it was not refused"
            place.leave()
            (await soon(waiting)).leave()

    run(main())


def test_a_wait_is_bounded(tmp_path: Path) -> None:
    async def main() -> None:
        with Workers(tmp_path, 1, QueueSettings(concurrent=1)) as (queue,):
            place = await queue.enter(NORMAL, 5)
            with pytest.raises(RequestError) as late:
                await queue.enter(LOW, 0.05)
            assert (late.value.code, late.value.status) == ("overloaded", 503)
            assert queue.statistics() == QueueStatistics(1, 0, 1, 1)
            place.leave()

    run(main())


def test_who_leaves_while_waiting_is_forgotten_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        with Workers(tmp_path, 1, QueueSettings(concurrent=1)) as (queue,):
            place = await queue.enter(NORMAL, 5)
            gone = asyncio.create_task(queue.enter(NORMAL, 5))
            await until(lambda: queue.statistics().waiting == 1)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            assert queue.statistics().waiting == 0
            # and when it leaves in the very moment in which it is given the place
            late = asyncio.create_task(queue.enter(NORMAL, 5))
            await until(lambda: queue.statistics().waiting == 1)
            place.leave()
            late.cancel()
            await asyncio.gather(late, return_exceptions=True)
            assert idle(queue)

    run(main())


HOLDER = """
import asyncio, sys
from pathlib import Path
from tidegate.gateway.queue.run import RouteQueue
from tidegate.gateway.queue.slots import Row, Slots
from tidegate.release.values import QueueSettings

async def main():
    queue = RouteQueue(Slots(Row(Path(sys.argv[1])), "r"), "r", QueueSettings(concurrent=2))
    for _ in range(2):
        await queue.enter(1, 5)
    print("held", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another worker, which holds both places."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_worker_that_is_killed_gives_its_places_back(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    async def main() -> None:
        with Workers(tmp_path, 1, QueueSettings(concurrent=2)) as (queue,):
            waiting = asyncio.create_task(queue.enter(NORMAL, 10))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            holder.send_signal(signal.SIGKILL)
            (await soon(waiting)).leave()
            assert idle(queue)

    run(main())


def test_places_of_a_dead_worker_are_free_for_its_successor_and_without_a_queue(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    async def main() -> None:
        holder.kill()
        holder.wait()
        none = QueueSettings(concurrent=2, waiting=0)
        with Workers(tmp_path, 1, none) as (queue,):
            places = [await queue.enter(NORMAL, 1) for _ in range(2)]
            with pytest.raises(RequestError, match="wait already"):
                await queue.enter(NORMAL, 1)
            for place in places:
                place.leave()

    run(main())


def test_a_worker_that_stops_inside_the_lock_stops_no_loop(tmp_path: Path) -> None:
    async def main() -> None:
        with Workers(tmp_path, 1, QueueSettings(concurrent=1)) as (queue,):
            other = os.open(tmp_path / "r.slots", os.O_RDWR)
            fcntl.flock(other, fcntl.LOCK_EX)
            waiting = asyncio.create_task(queue.enter(NORMAL, 5))
            await asyncio.sleep(0.02)  # a loop that stood still would never come to what follows
            assert not waiting.done()
            os.close(other)
            place: QueuePlace = await soon(waiting)
            place.leave()

    run(main())
