"""The loader's loop: connect, load, assemble journeys, drop old partitions; reconnect when
PostgreSQL is away."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from tidegate.base import RuntimeStateError
from tidegate.ledger.loader import ReceiptLoader, SpanLoader
from tidegate.ledger.partitions import Connection, Partitions
from tidegate.ledger.settings import database_url, ledger_settings
from tidegate.ledger.span_store import AT_ONCE, SpanStore
from tidegate.ledger.status import LedgerStatus, write_status
from tidegate.ledger.store import ReceiptStore
from tidegate.release import LedgerSettings

log = logging.getLogger("tidegate.ledger")

IDLE_PAUSE = 0.1
"""Seconds between looks at the spool when little comes."""
BUSY_PAUSE = 0.5
"""Seconds when much comes: larger batches cost less for each receipt."""
BUSY = 60
"""Receipts in one look that count as much."""
SPANS = "spans"
"""Folder in the state folder where the operator's door spools spans."""
_HOUSEKEEPING = 3600.0
_ASSEMBLY = 0.5
_TIDY = 1.0
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 5.0
_DRAIN = 5.0

Settings = Callable[[], LedgerSettings | None]


class Session:
    """Everything that lives as long as one connection."""

    def __init__(self, state: Path, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._partitions = Partitions()
        self._partitions.ensure_ahead(connection, datetime.now(UTC))
        self._store = ReceiptStore(connection, self._partitions)
        self._spans = SpanStore(connection, self._partitions)
        positions = self._store.positions()
        self._receipts = ReceiptLoader(state / "spool", self._store, positions)
        self._span_loader = SpanLoader(state / SPANS, self._spans, positions)
        self._assembled = self._tidied = self._kept_house = float("-inf")
        self.loaded = self.rejected = 0

    def turn(self) -> float:
        """Load what is there; how many seconds to pause before the next turn."""
        step, spans = self._receipts.step(), self._span_loader.step()
        self.loaded += step.loaded
        self.rejected += step.rejected
        if step.more or spans.more:
            return 0.0
        now = time.monotonic()
        if now - self._assembled > _ASSEMBLY and not self._assemble():
            self._assembled = now
        if now - self._tidied > _TIDY:
            self._tidied = now
            self._tidy()
        if now - self._kept_house > _HOUSEKEEPING:
            self._kept_house = now
            self._keep_house()
        return BUSY_PAUSE if step.loaded > BUSY else IDLE_PAUSE

    def behind(self) -> int:
        """Bytes spooled and not yet in PostgreSQL."""
        return self._receipts.cursor.behind() + self._span_loader.cursor.behind()

    def _assemble(self) -> bool:
        """Assemble what is due; whether more may be. Every receipt was loaded just before."""
        return self._spans.assemble_due() >= AT_ONCE

    def _tidy(self) -> None:
        for cursor in (self._receipts.cursor, self._span_loader.cursor):
            done = cursor.finished()
            if done:
                self._store.flush()
                for path in done:
                    cursor.remove(path)
                self._store.let_go(path.name for path in done)
            cursor.sweep_parts()

    def _keep_house(self) -> None:
        now = datetime.now(UTC)
        self._partitions.ensure_ahead(self._connection, now)
        settings = self._settings()
        if settings is None:
            return
        try:
            for name in self._partitions.drop_expired(self._connection, now, settings):
                log.info("dropped %s: older than is kept", name)
        except psycopg.errors.LockNotAvailable:
            log.info("a long query holds an old partition; it is dropped later")


class Loop:
    """Keeps a session going until ``stop`` is set; one log line for each outage and recovery."""

    def __init__(
        self,
        state: Path,
        stop: threading.Event,
        *,
        url: Callable[[], str] | None = None,
        settings: Settings | None = None,
    ) -> None:
        self._state = state
        self._stop = stop
        self._url = url or (lambda: database_url(state))
        self._settings = settings or (lambda: ledger_settings(state))
        self._degraded: str | None = None
        self._since = self._level_at = time.time()
        self._wait = _FIRST_WAIT
        self._loaded = self._rejected = 0
        self._written = 0.0
        self._mute = False

    def run(self) -> None:
        while not self._stop.is_set():
            try:
                with connect(self._url()) as connection:
                    self._serve(Session(self._state, connection, self._settings))
            except RuntimeStateError:
                self._stop.wait(_FIRST_WAIT)  # tidegate up is still starting
            except (psycopg.Error, OSError) as error:
                self._degrade(str(error).strip().splitlines()[0] if str(error) else repr(error))
                self._stop.wait(self._wait)
                self._wait = min(self._wait * 2, _LONGEST_WAIT)
        self._report(0)

    def _serve(self, session: Session) -> None:
        loaded, rejected = self._loaded, self._rejected
        give_up = None
        while give_up is None or time.monotonic() < give_up:
            pause = session.turn()
            self._loaded, self._rejected = loaded + session.loaded, rejected + session.rejected
            self._recover()
            behind = session.behind() if pause else None
            if behind == 0:
                self._level_at = time.time()
            self._report(behind)
            if self._stop.is_set():
                give_up = give_up or time.monotonic() + _DRAIN
                if behind == 0:
                    return
            if pause:
                self._stop.wait(pause)

    def _degrade(self, reason: str) -> None:
        if self._degraded is None:
            self._since = time.time()
            log.error("receipts wait in the spool: PostgreSQL does not take them (%s)", reason)
        self._degraded = reason
        self._report(None)

    def _recover(self) -> None:
        if self._degraded is not None:
            log.warning("PostgreSQL takes receipts again, after %.1f s", time.time() - self._since)
            self._degraded = None
        self._wait = _FIRST_WAIT

    def _report(self, behind: int | None) -> None:
        """Write the status once a second; ``behind`` is None while it is not known."""
        now = time.time()
        if now - self._written < 1.0 and not self._stop.is_set():
            return
        self._written = now
        status = LedgerStatus(
            pid=os.getpid(),
            at=now,
            level_at=self._level_at,
            behind_bytes=-1 if behind is None else behind,
            degraded=self._degraded,
            loaded=self._loaded,
            rejected=self._rejected,
        )
        try:
            write_status(self._state, status)
        except OSError as error:
            if not self._mute:
                log.error("the status of the ledger cannot be written: %s", error)
            self._mute = True
        else:
            self._mute = False


def connect(url: str) -> Connection:
    """A connection for loading. Commits do not wait for the disk: a spool file is deleted only
    after a flush, and until then it is loaded again from the committed position."""
    return psycopg.connect(
        url,
        autocommit=True,
        connect_timeout=5,
        application_name="tidegate-ledger",
        options="-c synchronous_commit=off -c statement_timeout=60s",
        prepare_threshold=2,
    )
