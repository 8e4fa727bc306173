"""Supervision of children: started, probed, restarted when they end, stopped in reverse order."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Self

import msgspec

from tidegate.base.children import Child, ChildSpec, not_ready, rotate_log
from tidegate.base.errors import RuntimeStateError, TidegateError
from tidegate.base.restarts import ChildRun, next_restart

log = logging.getLogger("tidegate.children")

_TICK = 0.1
"""Seconds between two looks at whether a child still runs."""
_PROBE_EVERY = 5.0
_PROBE_FAILURES = 4
"""Failed probes in a row after which a child counts as hung and is killed."""
_PROBE_TIMEOUT = 10.0
_START_POLL = 0.05

Phase = Literal["starting", "ready", "waiting", "failing", "stopped"]


class ChildState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a supervised child. ``waiting``: between two runs; ``failing``: it keeps on
    ending."""

    name: str
    phase: Phase
    pid: int | None
    restarts: int
    sentence: str


class Supervised:
    """One child under supervision. Made by :class:`Supervisor`."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self._child: Child | None = None
        self._stopping = asyncio.Event()
        self._first: asyncio.Future[TidegateError | None] = (
            asyncio.get_running_loop().create_future()
        )
        self._runs: deque[ChildRun] = deque(maxlen=32)
        self._restarts = 0
        self._was_ready = False
        self._phase: Phase = "starting"
        self._sentence = "starting"

    @property
    def state(self) -> ChildState:
        pid = self._child.pid if self._child is not None and self._child.poll() is None else None
        phase, sentence = self._phase, self._sentence
        if phase == "ready" and pid is None:  # it ended a moment ago; the watch sees it next
            phase, sentence = "waiting", "ended"
        return ChildState(
            name=self.spec.name,
            phase=phase,
            pid=pid,
            restarts=self._restarts,
            sentence=sentence,
        )

    async def ready(self) -> None:
        """Wait until it is ready for the first time.

        Raises what ended its first run when that comes before (RuntimeStateError
        ``child_not_ready``); the child is started again all the same, until it is stopped."""
        # Shielded: cancelling one waiter must not cancel the outcome that others wait for.
        if (error := await asyncio.shield(self._first)) is not None:
            raise error

    async def run(self) -> None:
        """Keep the child running until :meth:`stop`."""
        while not self._stopping.is_set():
            code, seconds, error = await self._run_or_fail()
            # A first run that SIGKILL ended was killed from outside (by the kernel for memory, by a
            # person): ready() goes on waiting for the second run.
            if code != -signal.SIGKILL or self._restarts:
                self._resolve_ready(error or not_ready(self.spec, code))
            if self._stopping.is_set():
                break
            self._runs.append(
                ChildRun(seconds=seconds, exit=-signal.SIGKILL if code is None else code)
            )
            restart = next_restart(tuple(self._runs), random.random())
            self._set_phase("failing" if restart.failing else "waiting", restart.sentence)
            if self._restarts or self._was_ready:  # else ready() tells its caller
                log.warning("%s %s", self.spec.name, restart.sentence)
            self._restarts += 1
            await self._pause(restart.delay)
        self._set_phase("stopped", "stopped")

    async def stop(self) -> None:
        """Ask the child to stop, kill it after its grace, and end :meth:`run`."""
        self._stopping.set()
        if self._child is not None:
            self._child.ask_to_stop()
            await self._ended_within(self._child, self.spec.grace)
            self._child.kill()

    def kill(self) -> None:
        """End the child at once."""
        self._stopping.set()
        if self._child is not None:
            self._child.kill()

    async def _run_or_fail(self) -> tuple[int | None, float, TidegateError | None]:
        """One run, or the reason why none began: the disk is full, its folder is in use."""
        try:
            return *(await self._run_once()), None
        except TidegateError as error:
            log.warning("%s cannot start: %s", self.spec.name, error.message)
            return 1, 0.0, error
        except OSError as error:
            log.warning("%s cannot start: %s", self.spec.name, error)
            cure = "free what is named there, disk or memory; it is tried again by itself"
            message = f"{self.spec.name} cannot start: {error}"
            return 1, 0.0, RuntimeStateError("child_cannot_start", message, cure=cure)

    async def _run_once(self) -> tuple[int | None, float]:
        """One run: its exit code (None: it hung and was killed) and its seconds."""
        if self.spec.prepare is not None:
            await asyncio.to_thread(self.spec.prepare)
        if self._stopping.is_set():  # while prepare ran in its thread
            return 0, 0.0
        child = self._child = Child(self.spec)
        self._set_phase("starting", f"starting as process {child.pid}")
        try:
            if await self._became_ready(child):
                self._mark_ready(child)
                await self._watch(child)
            if self._stopping.is_set():  # stop() gives it its grace
                await self._ended_within(child, self.spec.grace)
            return child.poll(), child.age()
        finally:
            child.kill()

    def _mark_ready(self, child: Child) -> None:
        if self._restarts:
            log.warning("%s is ready again as process %d", self.spec.name, child.pid)
        self._was_ready = True
        self._set_phase("ready", f"ready as process {child.pid}")
        self._resolve_ready(None)

    def _resolve_ready(self, error: TidegateError | None) -> None:
        """Set what :meth:`ready` returns or raises; only the first outcome counts."""
        if not self._first.done():
            self._first.set_result(error)

    async def _became_ready(self, child: Child) -> bool:
        while child.poll() is None and not self._stopping.is_set():
            if await self._answers():
                return child.poll() is None
            if child.age() > self.spec.ready_within:
                log.warning(
                    "%s gave no answer in %g s: killed", self.spec.name, self.spec.ready_within
                )
                return False
            await self._pause(_START_POLL)
        return False

    async def _watch(self, child: Child) -> None:
        """Until the child ends, is asked to stop, or stops answering."""
        next_probe, failures = child.age() + _PROBE_EVERY, 0
        while child.poll() is None and not self._stopping.is_set():
            await self._pause(_TICK)
            if child.age() < next_probe:
                continue
            rotate_log(self.spec.log)
            failures = 0 if await self._answers() else failures + 1
            if failures >= _PROBE_FAILURES and child.poll() is None:
                log.warning("%s stopped answering: killed", self.spec.name)
                return
            next_probe = child.age() + _PROBE_EVERY

    async def _ended_within(self, child: Child, seconds: float) -> bool:
        until = child.age() + seconds
        while child.poll() is None:
            if child.age() > until:
                return False
            await asyncio.sleep(0.02)
        return True

    async def _answers(self) -> bool:
        if self.spec.probe is None:
            return True
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT):
                return await asyncio.to_thread(self.spec.probe)
        except (OSError, TimeoutError):
            return False

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    def _set_phase(self, phase: Phase, sentence: str) -> None:
        self._phase, self._sentence = phase, sentence


class Supervisor:
    """An async context: children start in the order they are added and stop in the reverse order.

    >>> async with Supervisor() as supervisor:
    ...     await supervisor.add(spec).ready()
    """

    def __init__(self) -> None:
        self._children: list[tuple[Supervised, asyncio.Task[None]]] = []

    def add(self, spec: ChildSpec) -> Supervised:
        """Start ``spec`` and keep it running; await ``.ready()`` to know that it is up."""
        child = Supervised(spec)
        task = asyncio.get_running_loop().create_task(child.run(), name=f"child {spec.name}")
        self._children.append((child, task))
        return child

    @property
    def states(self) -> Sequence[ChildState]:
        return tuple(child.state for child, _ in self._children)

    def kill(self) -> None:
        """End every child at once."""
        for child, _ in self._children:
            child.kill()

    async def stop(self) -> None:
        """Stop every child, the one that was started last first."""
        while self._children:
            child, task = self._children[-1]
            await child.stop()
            await task
            self._children.pop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        try:
            await self.stop()
        finally:
            self.kill()
