"""Start the parts of an app in order, keep them running, stop them in the reverse order."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tidegate.base import ChildSpec, Runtime, RuntimeStateError, Supervisor, write_runtime
from tidegate.deploy.probes import answers_ok
from tidegate.deploy.values import LocalApp

log = logging.getLogger("tidegate.up")

READY_WITHIN = 60.0

Say = Callable[[str, float], None]
"""Called with each step that is done, and the seconds it took."""


async def serve(
    app: LocalApp,
    *,
    prepare: Callable[[], None],
    say: Say,
    on_ready: Callable[[], None],
) -> None:
    """Run ``app`` until SIGINT, SIGTERM or SIGHUP; a second one kills instead of stopping.

    ``prepare`` makes the database ready, once the engines run. Raises what keeps a part from its
    first start, after everything that had started is stopped again.
    """
    stop = asyncio.Event()
    try:
        async with Supervisor() as supervisor:
            with _signals(stop, supervisor):
                starting = asyncio.create_task(_start(app, supervisor, prepare, say))
                await _first_of(starting, stop.wait())
                if starting.done():
                    starting.result()
                    on_ready()
                    await stop.wait()
                starting.cancel()
                log.info("stopping: what runs may take 30 seconds, a second Ctrl-C ends it at once")
                await supervisor.stop()
    finally:
        _remove_runtime(app.runtime)


async def _start(
    app: LocalApp, supervisor: Supervisor, prepare: Callable[[], None], say: Say
) -> None:
    await _start_all(app.engines, supervisor, say)
    started = time.monotonic()
    await asyncio.to_thread(prepare)
    say("migrations", time.monotonic() - started)
    # Before the pools and parts: each reads the file when it starts.
    write_runtime(app.runtime)
    await _start_all(app.pools, supervisor, say)
    await _start_all(app.parts, supervisor, say)
    started = time.monotonic()
    await _until_ready(app.ready_url)
    say("gateway is ready", time.monotonic() - started)


async def _start_all(specs: Sequence[ChildSpec], supervisor: Supervisor, say: Say) -> None:
    """Start ``specs`` at once and wait for all; one line for each as it becomes ready."""
    started = time.monotonic()
    children = [supervisor.add(spec) for spec in specs]
    for child in children:
        await child.ready()
        say(child.spec.name, time.monotonic() - started)


async def _until_ready(url: str) -> None:
    try:
        async with asyncio.timeout(READY_WITHIN):
            while True:
                if await asyncio.to_thread(answers_ok, url):
                    return
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise RuntimeStateError(
            "gateway_not_ready",
            f"the gateway runs, but {url} did not say 200 in {READY_WITHIN:g} s",
            cure=f"open {url}: it says what is missing; read .tidegate/log/gateway.log",
        ) from None


async def _first_of(task: asyncio.Task[None], event: Awaitable[bool]) -> None:
    """Return when ``task`` is done or ``event`` has happened, whichever is first."""
    waiting = asyncio.ensure_future(event)
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


@contextmanager
def _signals(stop: asyncio.Event, supervisor: Supervisor) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            # Not stop(): the person has waited long enough, and draining would go on.
            log.warning("killed")
            supervisor.kill()
        stop.set()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _remove_runtime(runtime: Runtime) -> None:
    Path(runtime.run / "runtime.json").unlink(missing_ok=True)
