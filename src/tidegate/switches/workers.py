"""Which gateway workers there are, and which version of the switches each of them runs.

A worker writes a beat every second and the version that is wholly in force there. It is live while
its last beat is younger than LIVE_FOR; its successor in the same place takes its row over, so a
worker that was killed and started again is not waited for.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec
import psycopg

from tidegate.base import new_id, sha256
from tidegate.switches.changes import Change
from tidegate.switches.values import Standing

ACKS = "tidegate_acks"
"""NOTIFY channel: a worker has written a version."""
LIVE_FOR = 15.0
"""Seconds without a beat after which a worker counts as gone. A gateway kills and replaces one
that hangs after 10."""
REMEMBERED = 3600.0
"""Seconds that a worker which is gone stays in lists."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a worker works: its gateway (the same over restarts) and its name there."""

    gateway: str
    name: str
    host: str


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as it was last heard of."""

    gateway: str
    name: str
    host: str
    pid: int
    started: datetime
    silent: float
    """Seconds since its last beat."""
    version: int | None
    """Wholly in force there; None while it starts."""
    since: datetime | None
    """When it wrote that."""
    error: str | None
    listening: bool = True
    """Whether notifications reach it; without them it only polls, so changes come later."""

    @property
    def live(self) -> bool:
        return self.silent < LIVE_FOR

    def __str__(self) -> str:
        return f"{self.name} of {self.gateway} on {self.host} (process {self.pid})"


class Acknowledged(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that runs the new version, ``ms`` milliseconds after the change."""

    worker: Worker
    ms: float


class ChangeOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Which workers run a change; ``complete`` when every live one runs all of it."""

    version: int
    acknowledged: tuple[Acknowledged, ...]
    failed: tuple[Worker, ...]
    """Run the version but for what their ``error`` says."""
    missing: tuple[Worker, ...]
    """Live, and did not write in time."""
    lost: tuple[Worker, ...]
    """Not heard of for LIVE_FOR or longer, and not waited for: ended without a word, or serving
    where PostgreSQL cannot be reached."""

    @property
    def complete(self) -> bool:
        return not (self.missing or self.failed or self.lost)


# -- a worker's own part, over the connection of its watcher ---------------------------------------

REGISTER = (
    "INSERT INTO gateway_workers (gateway, name, host, pid, listening)"
    " VALUES (%s, %s, %s, %s, %s)"
    " ON CONFLICT (gateway, name) DO UPDATE SET host = excluded.host, pid = excluded.pid,"
    " started = clock_timestamp(), beat = clock_timestamp(), version = NULL, since = NULL,"
    " error = NULL, listening = excluded.listening"
)
BEAT = (
    "UPDATE gateway_workers SET beat = clock_timestamp(), listening = %s"
    " WHERE gateway = %s AND name = %s AND pid = %s RETURNING 1"
)
ACKNOWLEDGE = (
    "WITH written AS (UPDATE gateway_workers SET version = %s, error = %s,"
    " since = clock_timestamp(), beat = clock_timestamp()"
    " WHERE gateway = %s AND name = %s AND pid = %s RETURNING 1)"
    f" SELECT pg_notify('{ACKS}', '') FROM written"
)
LEAVE = "DELETE FROM gateway_workers WHERE gateway = %s AND name = %s AND pid = %s"


class Register:
    """Tells the others of one worker. Each call is one statement."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._mine = (place.gateway, place.name, os.getpid())

    async def enter(self, connection: psycopg.AsyncConnection, listening: bool) -> None:
        await connection.execute("SET synchronous_commit = off")  # a lost beat is written again
        place = self._place
        mine = (place.gateway, place.name, place.host, os.getpid(), listening)
        await connection.execute(REGISTER, mine)

    async def beat(self, connection: psycopg.AsyncConnection, listening: bool) -> bool:
        """Whether this worker's row is still there."""
        beaten = await connection.execute(BEAT, (listening, *self._mine))
        return beaten.rowcount == 1

    async def acknowledge(self, connection: psycopg.AsyncConnection, standing: Standing) -> None:
        await connection.execute(ACKNOWLEDGE, (standing.version, standing.error, *self._mine))

    async def leave(self, connection: psycopg.AsyncConnection) -> None:
        await connection.execute(LEAVE, self._mine)


def place_of(state: Path, name: str) -> Place:
    """The place ``name`` of the gateway whose state folder is ``state``. The gateway's id is made
    once and kept there, so that its row is its own on whatever host, and after a restart too."""
    path = state / "run" / "gateway.id"
    try:
        gateway = path.read_text().strip()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".gateway.id.{os.getpid()}.part")
        part.write_text(sha256(new_id())[:12])
        try:
            os.link(part, path)  # fails when another worker was first
        except FileExistsError:
            pass
        part.unlink()
        gateway = path.read_text().strip()
    return Place(gateway=gateway, name=name, host=socket.gethostname())


# -- the other side: who waits for them ------------------------------------------------------------


def list_workers(connection: psycopg.Connection) -> tuple[Worker, ...]:
    """Every worker that was heard of in the last hour, by gateway and name."""
    rows = connection.execute(
        "SELECT gateway, name, host, pid, started,"
        " extract(epoch FROM clock_timestamp() - beat)::float8, version, since, error, listening"
        " FROM gateway_workers WHERE beat > clock_timestamp() - make_interval(secs => %s)"
        " ORDER BY gateway, name",
        (REMEMBERED,),
    )
    return tuple(
        Worker(
            gateway=gateway,
            name=name,
            host=host,
            pid=pid,
            started=started,
            silent=max(0.0, silent),
            version=version,
            since=since,
            error=error,
            listening=listening,
        )
        for gateway, name, host, pid, started, silent, version, since, error, listening in rows
    )


AckProgress = Callable[[int, int], None]
"""Called with how many live workers have acknowledged, and how many there are."""


def wait_acknowledged(
    connection: psycopg.Connection,
    change: Change,
    within: float,
    progress: AckProgress | None = None,
) -> ChangeOutcome:
    """Wait until every live worker runs ``change``, ``within`` seconds at most.

    ``connection`` is in autocommit mode and has listened to ACKS since before the change.
    """
    deadline = time.monotonic() + within
    while True:
        outcome = outcome_of(_not_dead(list_workers(connection)), change)
        if progress is not None:
            done = len(outcome.acknowledged) + len(outcome.failed)
            progress(done, done + len(outcome.missing))
        left = deadline - time.monotonic()
        if not outcome.missing or left <= 0:
            return outcome
        for _ in connection.notifies(timeout=min(left, 0.2), stop_after=1):
            pass


def _not_dead(workers: tuple[Worker, ...]) -> tuple[Worker, ...]:
    """Without the silent ones that are known to be no more: their processes here have ended."""
    here = socket.gethostname()
    return tuple(one for one in workers if one.live or one.host != here or _runs(one.pid))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def outcome_of(workers: tuple[Worker, ...], change: Change) -> ChangeOutcome:
    """What ``workers`` have done with ``change`` so far; pure."""
    live = [worker for worker in workers if worker.live]
    reached = [one for one in live if one.version is not None and one.version >= change.version]
    return ChangeOutcome(
        version=change.version,
        acknowledged=tuple(
            Acknowledged(worker=one, ms=_ms(one, change)) for one in reached if one.error is None
        ),
        failed=tuple(one for one in reached if one.error is not None),
        missing=tuple(one for one in live if one not in reached),
        lost=tuple(one for one in workers if not one.live),
    )


def _ms(worker: Worker, change: Change) -> float:
    """Both times are of the database's clock. A worker that had a later version when it was first
    seen counts from this change all the same."""
    assert worker.since is not None
    return max(0.0, round((worker.since - change.at).total_seconds() * 1000, 1))
