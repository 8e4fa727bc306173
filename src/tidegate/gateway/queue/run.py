"""The queue of a route: it bounds how many requests ask a model at once, and how many wait.

Places are counted over all workers of the gateway (``slots``); who waits, waits in its own worker.
A place that falls free goes to the highest class, there to who came first. One's own is passed on
at once; those of other workers are looked for every few milliseconds, while anybody waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import msgspec

from tidegate.base import RequestError
from tidegate.gateway.queue.rules import (
    QueueLoad,
    QueueVerdict,
    arrive,
    lowest,
    predicted_wait,
    retry_after,
    service_time,
    smoothed,
    surge,
)
from tidegate.gateway.queue.slots import STALE, Row, Seen, Slots
from tidegate.gateway.values import Request
from tidegate.release import QueueSettings

POLL = 0.005
REAP = 0.05


class QueueStatistics(msgspec.Struct, frozen=True):
    """One route in one worker."""

    in_use: int
    waiting: int
    served: int
    shed: int


class QueuePlace:
    """The right to ask a model. ``leave`` gives it back; safe to call twice."""

    __slots__ = ("_queue", "_since")

    def __init__(self, queue: RouteQueue, since: float) -> None:
        self._queue: RouteQueue | None = queue
        self._since = since

    def leave(self) -> None:
        queue, self._queue = self._queue, None
        if queue is not None:
            queue.give_back(monotonic() - self._since)


class _Waiter:
    __slots__ = ("granted", "priority", "since")

    def __init__(self, priority: int, since: float) -> None:
        self.priority = priority
        self.since = since
        self.granted: asyncio.Future[QueuePlace] = asyncio.get_running_loop().create_future()

    def place(self) -> QueuePlace | None:
        """The place that was granted at the moment in which the request left."""
        told = self.granted.done() and not self.granted.cancelled()
        return self.granted.result() if told and self.granted.exception() is None else None


class RouteQueue:
    """One route's queue in one worker. ``settings`` may change between requests."""

    def __init__(self, slots: Slots, route: str, settings: QueueSettings) -> None:
        self._slots = slots
        self._route = route
        self.settings = settings
        self._in_use = self._served = self._shed = 0
        self._waiting: tuple[list[_Waiter], list[_Waiter], list[_Waiter]] = ([], [], [])
        self._service = self._took = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._reaped = 0.0

    def statistics(self) -> QueueStatistics:
        waiting = sum(map(len, self._waiting))
        return QueueStatistics(self._in_use, waiting, self._served, self._shed)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._slots.close()

    def load(self) -> float:
        """Requests that ask or wait, over all workers, as a share of those that may ask."""
        seen = self._slots.see(monotonic())
        return (seen.in_use + sum(seen.waiting)) / self.settings.concurrent

    async def enter(self, priority: int, patience: float) -> QueuePlace:
        """A place within ``patience`` seconds. Raises RequestError 503."""
        got = self._arrive(priority, patience)
        if isinstance(got, QueuePlace):
            return got
        try:
            async with asyncio.timeout(patience):
                return await got.granted
        except TimeoutError:
            if (late := got.place()) is not None:
                return late
            self._shed += 1
            words = f"no place within {patience:.1f} s"
            seen = self._slots.see(monotonic())
            wait = self._predict(seen, sum(seen.waiting[: priority + 1]))
            raise self._overloaded(words, wait) from None
        except asyncio.CancelledError:
            if (unused := got.place()) is not None:
                unused.leave()
            raise
        finally:
            self._forget(got)

    def give_back(self, seconds: float) -> None:
        """A place that was held for ``seconds`` is free."""
        self._in_use -= 1
        self._slots.use(self._in_use)
        self._service = smoothed(self._service, seconds)
        self._slots.serve(self._service)
        self._grant()

    # -- arriving and waiting -------------------------------------------------------------------

    def _arrive(self, priority: int, patience: float) -> QueuePlace | _Waiter:
        verdict = self._judge(priority, patience)
        if verdict.kind in ("full", "late") or (verdict.kind == "wait" and self._dead_ahead()):
            self._slots.reap()  # those who are in the way may be no more
            verdict = self._judge(priority, patience)
        if verdict.kind == "take":
            if (place := self._take((priority, monotonic()))) is not None:
                return place
            verdict = self._judge(priority, patience)  # another worker was quicker
        if verdict.kind == "late":
            self._shed += 1
            raise self._overloaded(verdict.reason, verdict.wait)
        if verdict.kind == "full":
            self._shed += 1
            raise self._full(verdict.reason, verdict.wait)
        waiter = _Waiter(priority, monotonic())
        self._waiting[priority].append(waiter)
        self._publish()
        if verdict.shed is not None and self._waiting[verdict.shed]:
            self._displace(verdict.shed, verdict.wait)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(POLL, self._poll)
        return waiter

    def _dead_ahead(self) -> bool:
        """Whether to look for workers that have ended without giving their places back."""
        now = monotonic()
        due = now - self._reaped > REAP
        if due:
            self._reaped = now
        return due

    def _judge(self, priority: int, patience: float) -> QueueVerdict:
        seen = self._slots.see(monotonic())
        return arrive(self._standing(seen), priority, patience)

    def _standing(self, seen: Seen) -> QueueLoad:
        settings = self.settings
        service = service_time(seen.service, seen.quiet)
        return QueueLoad(settings.concurrent, settings.waiting, seen.in_use, seen.waiting, service)

    def _predict(self, seen: Seen, ahead: int) -> float:
        service = service_time(seen.service, seen.quiet)
        return predicted_wait(ahead, service, self.settings.concurrent)

    def _displace(self, kind: int, wait: float) -> None:
        """Refuse the newest request of class ``kind``: one of a higher class takes its place."""
        waiter = self._waiting[kind].pop()
        self._publish()
        self._shed += 1
        if not waiter.granted.done():
            words = "its place in the queue went to a request of a higher priority"
            waiter.granted.set_exception(self._full(words, wait))

    def _forget(self, waiter: _Waiter) -> None:
        """Remove a request from the queue."""
        kind = self._waiting[waiter.priority]
        if waiter in kind:
            kind.remove(waiter)
            self._publish()

    def _publish(self) -> None:
        high, normal, low = map(len, self._waiting)
        since = next((kind[0].since for kind in self._waiting if kind), 0.0)
        self._slots.wait((high, normal, low), since, monotonic())

    def _poll(self) -> None:
        self._timer = None
        if not any(self._waiting):
            return
        self._publish()
        if self._dead_ahead():
            self._slots.reap()
        self._grant()
        self._make_room()
        if any(self._waiting):
            self._timer = asyncio.get_running_loop().call_later(POLL, self._poll)

    def _grant(self) -> None:
        """Pass free places to those who wait here, while they are first in the whole gateway."""
        while any(self._waiting):
            kind = next(kind for kind in self._waiting if kind)
            waiter = kind[0]
            if waiter.granted.done():  # it is leaving
                self._forget(waiter)
                continue
            place = self._take((waiter.priority, waiter.since))
            if place is None:
                return
            self._forget(waiter)
            waiter.granted.set_result(place)

    def _make_room(self) -> None:
        """Refuse a waiting request of the lowest class here: another worker has let in one of a
        higher."""
        with self._slots.locked() as alone:
            seen = self._slots.see(monotonic())
            shed = lowest(seen.waiting)
            over = sum(seen.waiting) > self.settings.waiting
            if alone and over and shed is not None and self._waiting[shed]:
                self._displace(shed, self._predict(seen, sum(seen.waiting)))

    def _take(self, who: tuple[int, float]) -> QueuePlace | None:
        """Take a place for ``who`` when one is free and no other worker has a request before it."""
        with self._slots.locked() as alone:
            now = monotonic()
            seen = self._slots.see(now)
            if (
                not alone
                or seen.in_use >= self.settings.concurrent
                or (seen.first is not None and seen.first < who)
            ):
                return None
            self._in_use += 1
            if now - self._took > STALE:
                self._service = 0.0  # times have changed
                self._slots.serve(0.0)
            self._took = now
            self._slots.take(self._in_use, now)
        self._served += 1
        return QueuePlace(self, now)

    # -- refusals -------------------------------------------------------------------------------

    def _full(self, words: str, wait: float) -> RequestError:
        return RequestError(
            503,
            "queue_full",
            f"route {self._route!r} takes no more: {words}",
            cure="retry after the time in retry-after, or raise queue.waiting of the route",
            retry_after=retry_after(wait),
        )

    def _overloaded(self, words: str, wait: float) -> RequestError:
        return RequestError(
            503,
            "overloaded",
            f"route {self._route!r} has more to do than it can: {words}",
            cure="retry after the time in retry-after, or raise queue.concurrent of the route",
            retry_after=retry_after(wait),
        )


class RouteQueues:
    """The queues of one worker, made when a route is first asked. ``crowd`` tells how full the
    worker is where a route has no queue, as a share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._row: Row | None = None
        self._routes: dict[str, RouteQueue] = {}
        self._surging: dict[str, bool] = {}
        self.crowd: Callable[[], float] = lambda: 0.0

    def statistics(self) -> dict[str, QueueStatistics]:
        """By route, of those that were asked."""
        return {name: queue.statistics() for name, queue in self._routes.items()}

    def close(self) -> None:
        for queue in self._routes.values():
            queue.close()
        self._routes.clear()
        if self._row is not None:
            self._row.close()
            self._row = None

    async def enter(self, request: Request) -> QueuePlace | None:
        """The place of ``request``, within its patience; None where its route has no queue."""
        route = request.plan.route
        if route.queue is None:
            return None
        left = request.deadline - asyncio.get_running_loop().time()
        queue = self._of(route.name, route.queue)
        return await queue.enter(request.priority, min(route.queue.wait, max(left, 0.0)))

    def surging(self, request: Request) -> bool:
        """Whether the cap under load of the request's route holds now."""
        route, switched = request.plan.route, request.switched
        if route.caps.surge is None:
            return False
        if switched is not None and switched.surge is not None:
            return switched.surge == "on"
        load = self.crowd()
        if route.queue is not None:
            load = self._of(route.name, route.queue).load()
        now = surge(self._surging.get(route.name, False), load, route.caps.surge.above)
        self._surging[route.name] = now.on
        return now.on

    def _of(self, route: str, settings: QueueSettings) -> RouteQueue:
        queue = self._routes.get(route)
        if queue is None:
            self._row = self._row or Row(self._folder)
            queue = self._routes[route] = RouteQueue(Slots(self._row, route), route, settings)
        queue.settings = settings
        return queue
