"""Playing a fault rewrites the beats of an answer, whatever dialect they are in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tidegate.testing.beats import STREAM_END, Beat, Beats, plain
from tidegate.testing.dialects import STATUS_CODES, Dialect
from tidegate.testing.faults import (
    Cut,
    Drip,
    ErrorEvent,
    Fault,
    Hang,
    InvalidEvent,
    MissingDone,
    NoUsage,
    Refuse,
    Reset,
    Silence,
    SlowFirstToken,
    Stall,
    UsageWithChoices,
)


def play(fault: Fault, beats: Beats, dialect: Dialect) -> Beats:
    """``beats`` as ``fault`` makes them."""
    return _REWRITES[type(fault)](fault, beats, dialect)


def _refuse(fault: Refuse, beats: Beats, dialect: Dialect) -> Beats:
    kind, code, message = STATUS_CODES.get(fault.status, STATUS_CODES[500])
    body = (
        fault.body.encode()
        if fault.body is not None
        else dialect.error_body(fault.status, kind, fault.code or code, fault.message or message)
    )
    headers = fault.headers
    if fault.retry_after is not None:
        headers = (*headers, ("retry-after", f"{fault.retry_after:g}"))
    return plain(fault.status, body, headers=headers)


def _reset(fault: Reset, beats: Beats, dialect: Dialect) -> Beats:
    yield Beat(0.0, "reset")


def _hang(fault: Hang, beats: Beats, dialect: Dialect) -> Beats:
    yield Beat(0.0, "hang")


def _silence(fault: Silence, beats: Beats, dialect: Dialect) -> Beats:
    yield next(beats)
    yield Beat(0.0, "hang")


def _slow_first_token(fault: SlowFirstToken, beats: Beats, dialect: Dialect) -> Beats:
    waited = False
    for beat in beats:
        late = not waited and beat.part in ("open", "body")
        waited = waited or late
        yield beat._replace(wait=beat.wait + fault.seconds) if late else beat


def _stop_after(after: int, beats: Beats, ending: tuple[Beat, ...]) -> Beats:
    """``after`` tokens of a stream, or half of a plain body, and then ``ending``."""
    sent = 0
    for beat in beats:
        if beat.part == "body":
            yield beat._replace(data=beat.data[: len(beat.data) // 2])
            break
        if beat.part in ("token", "finish"):
            if sent >= after or beat.part == "finish":
                break
            sent += 1
        yield beat
    yield from ending


def _cut(fault: Cut, beats: Beats, dialect: Dialect) -> Beats:
    head = next(beats)
    yield head
    # A plain body has a length, so it cannot end early and look whole.
    streamed = b"event-stream" in head.data
    clean = fault.how == "clean" and streamed
    ending = STREAM_END if clean else Beat(0.0, "reset" if fault.how == "reset" else "close")
    yield from _stop_after(fault.after, beats, (ending,))


def _stall(fault: Stall, beats: Beats, dialect: Dialect) -> Beats:
    return _stop_after(fault.after, beats, (Beat(0.0, "hang"),))


def _invalid_event(fault: InvalidEvent, beats: Beats, dialect: Dialect) -> Beats:
    sent, broken = 0, False
    for beat in beats:
        if beat.part == "body":
            # The same length, so that only the JSON is wrong and not the HTTP.
            yield beat._replace(data=b'{"' + b"x" * (len(beat.data) - 2))
            continue
        if not broken and beat.part in ("token", "finish") and sent == fault.after:
            broken = True
            yield Beat(0.0, "token", dialect.event('{"id":"broken","choices":[{"delta":'))
        sent += beat.part == "token"
        yield beat


def _missing_done(fault: MissingDone, beats: Beats, dialect: Dialect) -> Beats:
    return (beat for beat in beats if beat.part != "done")


def _error_event(fault: ErrorEvent, beats: Beats, dialect: Dialect) -> Beats:
    kind, code, _ = STATUS_CODES[500]
    body = dialect.error_body(500, kind, code, fault.message)
    head = next(beats)
    if b"event-stream" not in head.data:
        yield from plain(200, body, head.wait)
        return
    yield head
    error = Beat(0.0, "finish", dialect.error_event(body))
    yield from _stop_after(fault.after, beats, (error, STREAM_END))


def _drip(fault: Drip, beats: Beats, dialect: Dialect) -> Beats:
    for beat in beats:
        if beat.part == "head" or not beat.data:
            yield beat
            continue
        wait = beat.wait
        for at in range(0, len(beat.data), fault.size):
            yield beat._replace(wait=wait, data=beat.data[at : at + fault.size])
            wait = fault.seconds


def _as_it_is(fault: Fault, beats: Beats, dialect: Dialect) -> Beats:
    """The dialect leaves usage out or moves it while it writes the answer."""
    return beats


_REWRITES: dict[type, Callable[[Any, Beats, Dialect], Beats]] = {
    Refuse: _refuse,
    Reset: _reset,
    Hang: _hang,
    Silence: _silence,
    SlowFirstToken: _slow_first_token,
    Cut: _cut,
    Stall: _stall,
    InvalidEvent: _invalid_event,
    MissingDone: _missing_done,
    ErrorEvent: _error_event,
    Drip: _drip,
    NoUsage: _as_it_is,
    UsageWithChoices: _as_it_is,
}
