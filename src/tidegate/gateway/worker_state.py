"""What one worker holds: the plans of its release, keys, cache, recorder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from tidegate.base import RequestError
from tidegate.gateway.admit import Switchboard, switchboard
from tidegate.gateway.cache import ExactCache
from tidegate.gateway.idempotency import Idempotency
from tidegate.gateway.journal import Journal
from tidegate.gateway.limits import Limits
from tidegate.gateway.plan import Plan
from tidegate.gateway.queue import RouteQueues
from tidegate.gateway.record import Recorder
from tidegate.gateway.releases import Releases
from tidegate.gateway.values import HeaderList
from tidegate.release import Release
from tidegate.switches import KeyRecord, KeyTable, Standing, SwitchSnapshot

_JSON = ("content-type", "application/json")
_EVENTS = [
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-store"),
    ("x-accel-buffering", "no"),
]
_KEY_WORDS = {
    "key_missing": ("the request has no key", "send authorization: Bearer <key>"),
    "key_invalid": ("the key is not known here", "make one with: tidegate keys create"),
    "key_revoked": ("the key was revoked", "use its successor, or ask the operator for one"),
    "key_expired": ("the key has expired", "ask the operator for a new one"),
}


class WorkerState:
    """The state that the path reads. Everything here is complete before the first request."""

    def __init__(
        self,
        release: Release,
        releases: Releases,
        cache: ExactCache,
        limits: Limits,
        queue: RouteQueues,
        idempotency: Idempotency,
        recorder: Recorder,
    ) -> None:
        self.digest = releases.own.digest
        self.releases = releases
        self.steer = releases.steer
        self.cache = cache
        self.limits = limits
        self.queue = queue
        self.idempotency = idempotency
        self.max_connections = release.gateway.max_connections
        self.max_body_bytes = release.gateway.max_body_bytes
        self.keys_required = release.gateway.keys == "required"
        self.recorder = recorder
        self._keys: KeyTable | None = None
        self.switchboard: Switchboard | None = None
        self.switches_came = asyncio.Event()

    @property
    def routes(self) -> Mapping[str, Plan]:
        return self.releases.routes

    @property
    def ready(self) -> bool:
        return self._keys is not None or not self.keys_required

    def take(self, snapshot: SwitchSnapshot, keys: KeyTable) -> None:
        """In force from the next request on; releases and flags once they are loaded."""
        self._keys = keys
        self.switchboard = switchboard(snapshot)
        self.releases.take(snapshot)
        self.switches_came.set()

    def standing(self) -> Standing | None:
        """The newest snapshot that is wholly in force."""
        return self.releases.standing()

    def find_key(self, token: str | None, now: float) -> KeyRecord:
        """The key of ``token``. Raises RequestError 401 with the reason, 503 before keys came."""
        if self._keys is None:
            raise RequestError(
                503,
                "keys_unavailable",
                "this gateway has not seen its keys yet",
                cure="retry in a moment; GET /ready says when",
            )
        found = self._keys.find(token or "", now)
        if isinstance(found, KeyRecord):
            return found
        message, cure = _KEY_WORDS[found]
        raise RequestError(401, found, message, cure=cure)

    def headers(self, journal: Journal, stored_at: float | None = None) -> HeaderList:
        """The headers of an answer: which request, release and model, and whether it was kept."""
        steering = journal.steering
        release = self.releases.own if steering is None else steering.release
        headers = [
            _JSON,
            ("x-request-id", journal.id),
            release.header,
            ("x-tidegate-cache", journal.cache),
        ]
        if journal.served_by is not None:
            headers.append(("x-tidegate-served-by", journal.served_by))
        if steering is not None and steering.variant is not None:
            headers.append(("x-tidegate-variant", steering.variant))
        if journal.model is not None:
            headers.append(("x-tidegate-model", journal.model))
        if stored_at is not None:
            headers.append(("age", str(max(0, int(time.time() - stored_at)))))
        if journal.grant is not None:
            headers += journal.grant.headers
        if journal.cache == "idempotent":
            headers.append(("idempotent-replayed", "true"))
        if journal.queued is not None:
            headers.append(("x-tidegate-queued-ms", f"{journal.queued:.1f}"))
        if journal.capped is not None:
            headers.append(("x-tidegate-capped", journal.capped))
        return headers


def stream_headers(headers: HeaderList) -> HeaderList:
    """``headers`` for an event stream instead of JSON."""
    return _EVENTS + headers[1:]
