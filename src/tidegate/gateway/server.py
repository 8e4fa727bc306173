"""What one worker answers: dispatch, the last edge for errors, start and end.

Every request of the API leaves a receipt, whatever happens to it here or below.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Coroutine
from pathlib import Path
from time import perf_counter_ns
from typing import Any
from urllib.parse import unquote

import msgspec

from tidegate.base.errors import RequestError
from tidegate.base.ids import new_id
from tidegate.gateway.admit import bearer, find_model
from tidegate.gateway.boot import Parts
from tidegate.gateway.call import draining
from tidegate.gateway.path import serve
from tidegate.gateway.values import Call
from tidegate.gateway.wire.http_server import ClientGone, Request, Response, Server
from tidegate.gateway.wire.openai import error_body, error_event
from tidegate.ledger.gauges import WorkerGauges, gauges_path, write_gauges
from tidegate.ledger.receipts import Outcome
from tidegate.switches import place_of, watch

log = logging.getLogger("tidegate.gateway")

SWITCHES_WITHIN = 3.0
"""Seconds that a starting worker waits for keys, kills and caps before it takes requests without.
"""

_KINDS = {"/v1/chat/completions": "chat", "/v1/embeddings": "embeddings"}
_JSON = [("content-type", "application/json")]


class Gateway:
    """One worker's application: ``handle`` answers one request, whatever it is."""

    def __init__(self, parts: Parts, alive: Path | None = None) -> None:
        self._parts = parts
        self._alive = alive
        self._door = parts.door
        self._tasks: set[asyncio.Task[Any]] = set()
        self.server: Server | None = None
        """Whose connections the gauges count; set by who opens the door."""

    # -- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Everything but the door: after this a request can be answered."""
        parts = self._parts
        await parts.store.start()
        kept = parts.runtime.run / "switches.json"
        name = f"worker-{os.getpid()}" if self._alive is None else self._alive.stem
        place = place_of(Path(parts.runtime.state), name)
        self._spawn(watch(parts.runtime.database_url, self._door, fallback_file=kept, place=place))
        self._spawn(self._door.releases.work())
        self._spawn(self._tend())
        try:
            async with asyncio.timeout(SWITCHES_WITHIN):
                await self._door.switches_came.wait()
                await self._door.releases.settled.wait()
        except TimeoutError:
            until = "refused" if self._door.keys_required else "served without keys and switches"
            log.warning(
                "no switches within %g s: requests are %s until they come", SWITCHES_WITHIN, until
            )

    async def stop(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._parts.counters.stop()
        await self._parts.store.stop()
        for target in self._door.releases.targets():
            target.pool.close()
        self._door.queue.close()
        self._parts.spool.close()

    async def _tend(self) -> None:
        """Once a second: write what waits for the disk, let old spool files go, show a pulse."""
        while True:
            await asyncio.sleep(1.0)
            self._parts.spool.tend()
            self.pulse()
            self._report()

    def pulse(self) -> None:
        """Show the master that this loop turns."""
        if self._alive is not None:
            try:
                self._alive.touch()
            except OSError as error:
                log.debug("no pulse: %s", error)

    def gauges(self) -> dict[str, float]:
        """What is under way or held in this worker at this moment."""
        parts = self._parts
        targets = self._door.releases.targets()
        pools = [target.pool.statistics() for target in targets]
        spool = parts.spool.statistics()
        queues = self._door.queue.statistics().values()
        now: dict[str, float] = {
            "tasks": len(asyncio.all_tasks()),
            "upstream_busy": sum(pool.busy for pool in pools),
            "upstream_idle": sum(pool.idle for pool in pools),
            "cache_flights": self._door.cache.statistics().flights,
            "queue_places": sum(queue.in_use for queue in queues),
            "queue_waiting": sum(queue.waiting for queue in queues),
            **draining(target.keys for target in targets),
            "idempotency_held": self._door.idempotency.statistics().held,
            "valkey_pending": parts.store.statistics().pending,
            "spool_waiting": spool.waiting,
        }
        if self.server is not None:
            server = self.server.statistics()
            now |= {"connections": server.connections, "running": server.running}
            now["connections_leaving"] = self.server.leaving
        return now

    def _report(self) -> None:
        """Tell the operator's door the gauges; a full disk costs that, nothing more."""
        if self._alive is not None:
            value = WorkerGauges(
                pid=os.getpid(), at=time.time(), release=self._door.digest, gauges=self.gauges()
            )
            try:
                write_gauges(gauges_path(self._alive), value)
            except OSError as error:
                log.debug("no gauges: %s", error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- requests -------------------------------------------------------------------------------

    async def handle(self, request: Request, out: Response) -> None:
        kind = _KINDS.get(request.path)
        if kind is None or request.method != "POST":
            self._answer_other(request, out)
            return
        call = Call(new_id(), time.time(), perf_counter_ns())
        call.kind = kind
        try:
            await serve(self._door, call, kind, request, out)
        except RequestError as error:
            self._refuse(call, error, out)
        except (asyncio.CancelledError, ClientGone):
            if out.cut and not out.gone:
                self._cut(call, out)
                return
            self._end_early(call, out)
            if not out.gone:
                raise
        except Exception:
            # The edge of a request: nothing a client sends may end a worker or show its insides.
            log.exception("request %s failed inside the gateway", call.id)
            self._refuse(call, _internal(call.id), out)
        finally:
            self._door.releases.leave(call)

    def _refuse(self, call: Call, error: RequestError, out: Response) -> None:
        call.status, call.code = error.status, error.code
        call.outcome = "failed" if call.attempts else "refused"
        call.leave(_stage_after(call), perf_counter_ns())
        self._door.record(call)
        if out.begun:
            return
        headers = self._door.headers(call)
        if error.retry_after:
            headers.append(("retry-after", error.retry_after))
        out.whole(error.status, headers, error_body(error))

    def _cut(self, call: Call, out: Response) -> None:
        """This worker must end before the answer did: the client is told, and so is the receipt."""
        error = _draining()
        log.warning("request %s of key %s was cut: the drain time is over", call.id, call.key_id)
        if call.attempts and call.attempts[-1].code == "client_gone":
            call.attempts[-1] = msgspec.structs.replace(call.attempts[-1], code=error.code)
        if not out.begun:
            self._refuse(call, error, out)
        else:
            self._end_early(call, out, "failed", error.code)
            out.end(error_event(error))

    def _end_early(
        self, call: Call, out: Response, outcome: Outcome = "client_gone", code: str = "client_gone"
    ) -> None:
        """Nobody waits any more, or this worker must end: the receipt says so."""
        if call.recorded:
            return  # only the last bytes found nobody
        call.outcome, call.code = outcome, code
        call.status = 200 if out.begun else 499
        call.leave(_stage_after(call), perf_counter_ns())
        self._door.record(call)

    def _answer_other(self, request: Request, out: Response) -> None:
        path, reading = request.path, request.method in ("GET", "HEAD")
        if reading and path == "/health":
            out.whole(200, _JSON, b'{"status":"ok"}')
        elif reading and path == "/ready":
            out.whole(200 if self._door.ready else 503, _JSON, self._state())
        else:
            call = Call(new_id(), time.time(), perf_counter_ns())
            try:
                if not (path + "/").startswith("/v1/models/") or not reading:
                    raise _no_such_place(path, request.method)
                if self._door.keys_required:
                    self._door.find_key(bearer(request.header(b"authorization")), call.at)
                found = self._describe(unquote(path.removeprefix("/v1/models")))
                call.status, call.outcome = 200, "served"
                call.leave("admit", perf_counter_ns())
                self._door.record(call)
                out.whole(200, _JSON, found)
            except RequestError as error:
                self._refuse(call, error, out)

    def _describe(self, rest: str) -> bytes:
        """The list of what can be named as ``model``, or the one that ``rest`` names."""
        models = {name: _model(name) for name in self._door.routes}
        if rest in ("", "/"):
            return msgspec.json.encode({"object": "list", "data": list(models.values())})
        return msgspec.json.encode(find_model(models, rest.removeprefix("/")))

    def _state(self) -> bytes:
        parts = self._parts
        pools = [target.pool.statistics() for target in self._door.releases.targets()]
        return msgspec.json.encode(
            {
                "ready": self._door.ready,
                "release": self._door.digest,
                "releases": self._door.releases.running(),
                "worker": os.getpid(),
                "cache": "up" if parts.store.up else "down",
                "upstream": {
                    "busy": sum(pool.busy for pool in pools),
                    "idle": sum(pool.idle for pool in pools),
                },
                "spool": "degraded" if parts.spool.statistics().degraded else "ok",
                "queues": parts.door.queue.statistics(),
                "idempotency": parts.door.idempotency.statistics(),
            }
        )


def _stage_after(call: Call) -> str:
    """The stage in which a request was when it ended early."""
    for stage in ("admit", "render", "cache", "route", "call"):
        if stage not in call.stages:
            return stage
    return "guard"


def _no_such_place(path: str, method: str) -> RequestError:
    places = (
        "POST /v1/chat/completions, POST /v1/embeddings, GET /v1/models, GET /health, GET /ready"
    )
    if path in _KINDS or path == "/v1/models":
        return RequestError(
            405,
            "method_not_allowed",
            f"{method[:20]} is not for {path}",
            cure=f"this gateway answers {places}",
        )
    return RequestError(
        404, "path_unknown", f"there is nothing at {path[:200]}", cure=f"it answers {places}"
    )


def _draining() -> RequestError:
    return RequestError(
        503,
        "gateway_draining",
        "this gateway is being stopped, and the answer was not ready in time",
        cure="send the request again",
        retry_after="1",
    )


def _internal(request_id: str) -> RequestError:
    return RequestError(
        500,
        "internal_error",
        "the gateway failed to handle this request",
        cure=f"give the operator the request id {request_id}",
    )


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "tidegate"}
