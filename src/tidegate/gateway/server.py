"""The HTTP door of one worker (RSGI): dispatch, the last edge for errors, start and end.

Every request of the API leaves a receipt, whatever happens to it here or below.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import sys
import time
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import msgspec

from tidegate.base.errors import RequestError
from tidegate.base.ids import new_id
from tidegate.gateway.boot import Parts, assemble, served_models
from tidegate.gateway.call.rules import Refused
from tidegate.gateway.door import Out, Request
from tidegate.gateway.path import serve
from tidegate.gateway.record import settle
from tidegate.gateway.values import Call
from tidegate.gateway.wire.openai import error_body
from tidegate.switches import watch

log = logging.getLogger("tidegate.gateway")

STATE_VARIABLE = "TIDEGATE_GATEWAY_STATE"
_KINDS = {"/v1/chat/completions": "chat", "/v1/embeddings": "embeddings"}
_WATCH_AFTER = 0.05
"""Seconds until a running request is watched for a client that leaves: fast ones never pay."""


class Gateway:
    """One worker. Granian calls ``__rsgi_init__`` once, then ``__rsgi__`` for each request."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._parts: Parts | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._models = b""

    # -- life -----------------------------------------------------------------------------------

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        die_with_parent()
        loop.run_until_complete(self.start())

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_until_complete(self.stop())

    async def start(self) -> None:
        self._parts = parts = assemble(self._state, os.environ)
        await parts.store.start()
        self._models = _model_list(served_models(parts.door.release))
        keys_file = parts.runtime.run / "keys.json"
        self._spawn(
            watch(parts.runtime.database_url, parts.door.take_keys, fallback_file=keys_file)
        )
        self._spawn(self._tend())

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._parts is not None:
            await self._parts.store.stop()
            for target in self._parts.targets.values():
                target.pool.close()
            self._parts.spool.close()

    async def _tend(self) -> None:
        """Once a second: write what waits for the disk, let old spool files go."""
        while True:
            await asyncio.sleep(1.0)
            assert self._parts is not None
            self._parts.spool.tend()

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- requests -------------------------------------------------------------------------------

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        kind = _KINDS.get(scope.path)
        if kind is not None and scope.method == "POST":
            await self._answer(kind, scope, protocol)
        else:
            await self._answer_other(scope, protocol)

    async def _answer(self, kind: str, scope: Any, protocol: Any) -> None:
        parts = self._parts
        assert parts is not None
        call = Call(new_id(), time.time(), perf_counter_ns())
        call.kind = kind
        out = Out(protocol)
        task = asyncio.current_task()
        assert task is not None
        watch = asyncio.get_running_loop().call_later(
            _WATCH_AFTER, _watch_client, protocol, task, call
        )
        try:
            await serve(parts.door, call, kind, Request(scope.headers, protocol), out)
        except RequestError as error:
            self._refuse(call, error, out)
        except asyncio.CancelledError:
            if not call.client_gone:
                raise
            self._client_gone(call, out)
        except Exception as error:
            if type(error).__name__ == "RSGIProtocolClosed":
                self._client_gone(call, out)
                return
            # The edge of a request: nothing a client sends may end a worker or show its insides.
            log.exception("request %s failed inside the gateway", call.id)
            self._refuse(call, _internal(call.id), out)
        finally:
            watch.cancel()

    def _refuse(self, call: Call, error: RequestError, out: Out) -> None:
        assert self._parts is not None
        door = self._parts.door
        call.status, call.code = error.status, error.code
        call.outcome = "failed" if call.attempts else "refused"
        call.leave(_stage_after(call), perf_counter_ns())
        door.record(call)
        if out.begun:
            return
        headers = door.headers(call)
        if isinstance(error, Refused) and error.retry_after:
            headers.append(("retry-after", error.retry_after))
        out.whole(error.status, headers, error_body(error))

    def _client_gone(self, call: Call, out: Out) -> None:
        """Nobody waits any more: settle the cost of what was used in the background."""
        if call.recorded:
            return  # only the last bytes found nobody
        call.outcome, call.code = "client_gone", "client_gone"
        call.status = 200 if out.begun else 499
        call.leave(_stage_after(call), perf_counter_ns())
        self._spawn(self._record_gone(call))

    async def _record_gone(self, call: Call) -> None:
        assert self._parts is not None
        if call.partial_text is not None and call.usage is None:
            await settle(call, call.upstream.get("messages", b""), call.partial_text)
        self._parts.door.record(call)

    async def _answer_other(self, scope: Any, protocol: Any) -> None:
        parts = self._parts
        assert parts is not None
        path, method = scope.path, scope.method
        if method in ("GET", "HEAD"):
            if path == "/health":
                return _small(protocol, 200, b'{"status":"ok"}')
            if path == "/ready":
                return self._ready(parts, protocol)
        call = Call(new_id(), time.time(), perf_counter_ns())
        out = Out(protocol)
        try:
            if path == "/v1/models" and method == "GET":
                if parts.door.keys_required:
                    from tidegate.gateway.admit.headers import bearer

                    token = bearer(scope.headers.get("authorization"))
                    parts.door.find_key(token, call.at)
                return _small(protocol, 200, self._models)
            raise _no_such_place(path, method)
        except RequestError as error:
            self._refuse(call, error, out)

    def _ready(self, parts: Parts, protocol: Any) -> None:
        state = {
            "ready": parts.door.ready,
            "release": parts.door.digest,
            "worker": os.getpid(),
            "cache": "up" if parts.store.up else "down",
            "spool": "degraded" if parts.spool.statistics().degraded else "ok",
        }
        _small(protocol, 200 if parts.door.ready else 503, msgspec.json.encode(state))


def _watch_client(protocol: Any, task: asyncio.Task[Any], call: Call) -> None:
    """From now on, a client that leaves ends its request."""

    async def until_gone() -> None:
        await protocol.client_disconnect()
        if not task.done():
            call.client_gone = True
            task.cancel()

    watcher = asyncio.ensure_future(until_gone())
    task.add_done_callback(lambda _: watcher.cancel())


def _small(protocol: Any, status: int, body: bytes) -> None:
    protocol.response_bytes(status, [("content-type", "application/json")], body)


def _stage_after(call: Call) -> str:
    """The stage in which a request was when it ended early."""
    for stage in ("admit", "render", "cache", "route", "call"):
        if stage not in call.stages:
            return stage
    return "guard"


def _no_such_place(path: str, method: str) -> RequestError:
    places = "POST /v1/chat/completions, POST /v1/embeddings, GET /v1/models, GET /health"
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


def _internal(request_id: str) -> RequestError:
    return RequestError(
        500,
        "internal_error",
        "the gateway failed to handle this request",
        cure=f"give the operator the request id {request_id}",
    )


def _model_list(names: list[str]) -> bytes:
    models = [{"id": n, "object": "model", "created": 0, "owned_by": "tidegate"} for n in names]
    return msgspec.json.encode({"object": "list", "data": models})


def die_with_parent() -> None:
    """A worker whose supervisor was killed ends too (Linux: PR_SET_PDEATHSIG)."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the call
        os.kill(os.getpid(), signal.SIGTERM)


def make_app() -> Gateway:
    """The application that Granian loads in each worker process."""
    return Gateway(Path(os.environ[STATE_VARIABLE]))
