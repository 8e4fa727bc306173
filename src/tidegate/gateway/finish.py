"""The end of every request: what is still open is closed, the receipt is written, and then the
client gets the last bytes. In this order, so that a whole answer always has its receipt."""

from __future__ import annotations

from time import perf_counter_ns

from tidegate.base import RequestError
from tidegate.gateway.journal import Journal
from tidegate.gateway.ports import ClientDialect
from tidegate.gateway.targets import LEFT
from tidegate.gateway.values import Ending
from tidegate.gateway.wire.http_server import HttpResponse
from tidegate.gateway.worker_state import WorkerState


def finish(state: WorkerState, journal: Journal, ending: Ending, out: HttpResponse | None) -> None:
    """End the request of ``journal``, once; later calls do nothing. ``out`` is None when no client
    waits for it."""
    if journal.finished:
        return
    journal.finished = True
    if journal.open:
        journal.abandon(ending.code or LEFT.code)
    journal.enter(None)
    try:
        state.recorder.record(journal, ending, perf_counter_ns())
    finally:
        if journal.steering is not None:
            state.releases.leave(journal.steering.release)
    if out is None or out.gone:
        return
    if out.begun:
        out.end(ending.body)
        return
    headers = state.headers(journal, ending.stored_at)
    if ending.retry_after:
        headers.append(("retry-after", ending.retry_after))
    out.whole(ending.status, headers, ending.body)


def refused(
    journal: Journal, dialect: ClientDialect, error: RequestError, *, begun: bool
) -> Ending:
    """The end of a request with ``error``, sent in-band when its stream had begun."""
    return Ending(
        status=200 if begun else error.status,
        outcome="failed" if journal.asked else "refused",
        code=error.code,
        body=dialect.error_event(error) if begun else dialect.error_body(error),
        retry_after=error.retry_after,
    )


def left(*, begun: bool) -> Ending:
    """The end of a request whose client has left."""
    return Ending(status=200 if begun else 499, outcome="client_gone", code=LEFT.code)
