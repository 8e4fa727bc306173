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
from urllib.parse import unquote

import msgspec

from tidegate.base import RequestError, new_id
from tidegate.gateway.admit import bearer, find_model
from tidegate.gateway.boot import Parts
from tidegate.gateway.finish import finish, left, refused
from tidegate.gateway.formats.openai_errors import error_body
from tidegate.gateway.journal import Journal
from tidegate.gateway.path import serve
from tidegate.gateway.ports import ClientDialect
from tidegate.gateway.targets import draining
from tidegate.gateway.values import Ending
from tidegate.gateway.wire.http_server import ClientGone, HttpRequest, HttpResponse, HttpServer
from tidegate.ledger import WorkerGauges, gauges_path, write_gauges
from tidegate.switches import place_of, watch

log = logging.getLogger("tidegate.gateway")

SWITCHES_WITHIN = 3.0
"""Seconds that a starting worker waits for keys, kills and caps before it takes requests without.
"""

_JSON = [("content-type", "application/json")]


class GatewayWorker:
    """One worker's application: ``handle`` answers one request, whatever it is."""

    def __init__(self, parts: Parts, alive: Path | None = None) -> None:
        self._parts = parts
        self._alive = alive
        self._state = parts.state
        self._tasks: set[asyncio.Task[None]] = set()
        self.server: HttpServer | None = None
        """Whose connections the gauges count; set by who opens the door."""

    # -- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Everything but the door: after this a request can be answered."""
        parts = self._parts
        await parts.store.start()
        kept = parts.runtime.run / "switches.json"
        name = f"worker-{os.getpid()}" if self._alive is None else self._alive.stem
        place = place_of(Path(parts.runtime.state), name)
        self._spawn(watch(parts.runtime.database_url, self._state, fallback_file=kept, place=place))
        self._spawn(self._state.releases.work())
        self._spawn(self._tend())
        try:
            async with asyncio.timeout(SWITCHES_WITHIN):
                await self._state.switches_came.wait()
                await self._state.releases.settled.wait()
        except TimeoutError:
            until = "refused" if self._state.keys_required else "served without keys and switches"
            log.warning(
                "no switches within %g s: requests are %s until they come", SWITCHES_WITHIN, until
            )

    async def stop(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._parts.counters.stop()
        await self._parts.store.stop()
        for target in self._state.releases.targets():
            target.pool.close()
        self._state.queue.close()
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
        targets = self._state.releases.targets()
        pools = [target.pool.statistics() for target in targets]
        spool = parts.spool.statistics()
        queues = self._state.queue.statistics().values()
        now: dict[str, float] = {
            "tasks": len(asyncio.all_tasks()),
            "upstream_busy": sum(pool.busy for pool in pools),
            "upstream_idle": sum(pool.idle for pool in pools),
            "cache_flights": self._state.cache.statistics().flights,
            "queue_places": sum(queue.in_use for queue in queues),
            "queue_waiting": sum(queue.waiting for queue in queues),
            **draining(target.keys for target in targets),
            "idempotency_held": self._state.idempotency.statistics().held,
            "valkey_pending": parts.store.statistics().pending,
            "spool_waiting": spool.waiting,
        }
        if self.server is not None:
            server = self.server.statistics()
            now |= {"connections": server.connections, "running": server.running}
            now["connections_leaving"] = self.server.leaving
        return now

    def _report(self) -> None:
        """Write the gauges for the operator's door; a full disk costs that, nothing more."""
        if self._alive is not None:
            value = WorkerGauges(
                pid=os.getpid(), at=time.time(), release=self._state.digest, gauges=self.gauges()
            )
            try:
                write_gauges(gauges_path(self._alive), value)
            except OSError as error:
                log.debug("no gauges: %s", error)

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- requests -------------------------------------------------------------------------------

    async def handle(self, request: HttpRequest, out: HttpResponse) -> None:
        dialect = self._parts.dialects.get(request.path)
        if dialect is None or request.method != "POST":
            self._answer_other(request, out)
            return
        journal = Journal(new_id(), time.time(), perf_counter_ns(), dialect.kind)
        try:
            ending = await serve(self._state, dialect, request, out, journal)
        except RequestError as error:
            ending = refused(journal, dialect, error, begun=out.begun)
        except (asyncio.CancelledError, ClientGone):
            if out.cut and not out.gone:
                ending = self._cut(journal, dialect, out)
            else:
                ending = left(begun=out.begun)
            finish(self._state, journal, ending, out if out.cut else None)
            if not out.cut and not out.gone:
                raise
            return
        except Exception:
            # The edge of a request: nothing a client sends may end a worker or show its insides.
            log.exception("request %s failed inside the gateway", journal.id)
            ending = refused(journal, dialect, _internal(journal.id), begun=out.begun)
        finish(self._state, journal, ending, out)

    def _cut(self, journal: Journal, dialect: ClientDialect, out: HttpResponse) -> Ending:
        """Cut an answer, as this worker must end: the client and the receipt get the error."""
        key = journal.caller.key_id
        log.warning("request %s of key %s was cut: the drain time is over", journal.id, key)
        ending = refused(journal, dialect, _draining(), begun=out.begun)
        return msgspec.structs.replace(ending, outcome="failed") if out.begun else ending

    def _answer_other(self, request: HttpRequest, out: HttpResponse) -> None:
        path, reading = request.path, request.method in ("GET", "HEAD")
        if reading and path == "/health":
            out.whole(200, _JSON, b'{"status":"ok"}')
        elif reading and path == "/ready":
            out.whole(200 if self._state.ready else 503, _JSON, self._readiness())
        else:
            journal = Journal(new_id(), time.time(), perf_counter_ns())
            try:
                if not (path + "/").startswith("/v1/models/") or not reading:
                    raise self._no_such_place(path, request.method)
                if self._state.keys_required:
                    self._state.find_key(bearer(request.header(b"authorization")), journal.at)
                found = self._describe(unquote(path.removeprefix("/v1/models")))
                ending = Ending(status=200, outcome="served", body=found)
            except RequestError as error:
                ending = Ending(
                    status=error.status,
                    outcome="refused",
                    code=error.code,
                    body=error_body(error),
                    retry_after=error.retry_after,
                )
            finish(self._state, journal, ending, out)

    def _no_such_place(self, path: str, method: str) -> RequestError:
        known = ", ".join(f"POST {one}" for one in sorted(self._parts.dialects))
        places = f"{known}, GET /v1/models, GET /health, GET /ready"
        if path in self._parts.dialects or path == "/v1/models":
            return RequestError(
                405,
                "method_not_allowed",
                f"{method[:20]} is not for {path}",
                cure=f"this gateway answers {places}",
            )
        return RequestError(
            404, "path_unknown", f"there is nothing at {path[:200]}", cure=f"it answers {places}"
        )

    def _describe(self, rest: str) -> bytes:
        """The list of what can be named as ``model``, or the one that ``rest`` names."""
        models = {name: _model(name) for name in self._state.routes}
        if rest in ("", "/"):
            return msgspec.json.encode({"object": "list", "data": list(models.values())})
        return msgspec.json.encode(find_model(models, rest.removeprefix("/")))

    def _readiness(self) -> bytes:
        parts = self._parts
        pools = [target.pool.statistics() for target in self._state.releases.targets()]
        return msgspec.json.encode(
            {
                "ready": self._state.ready,
                "release": self._state.digest,
                "releases": self._state.releases.running(),
                "worker": os.getpid(),
                "cache": "up" if parts.store.up else "down",
                "upstream": {
                    "busy": sum(pool.busy for pool in pools),
                    "idle": sum(pool.idle for pool in pools),
                },
                "spool": "degraded" if parts.spool.statistics().degraded else "ok",
                "queues": parts.state.queue.statistics(),
                "idempotency": parts.state.idempotency.statistics(),
            }
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
