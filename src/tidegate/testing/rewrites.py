"""Playing a fault rewrites the beats of an answer, whatever dialect they are in."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import msgspec

from tidegate.testing.beats import STREAM_END, Beat, Beats, chunk, encode, plain
from tidegate.testing.dialects import STATUS_CODES, ServerDialect
from tidegate.testing.faults import (
    BadBody,
    Cut,
    Drip,
    DuplicateEvent,
    ErrorEvent,
    Fault,
    Filtered,
    Hang,
    Hold,
    InvalidEvent,
    MissingDone,
    MissingField,
    Mutate,
    NoUsage,
    Refuse,
    Reset,
    Silence,
    SlowFirstToken,
    SlowTokens,
    Stall,
    UsageWithChoices,
)


def play(fault: Fault, beats: Beats, dialect: ServerDialect, source: random.Random) -> Beats:
    """``beats`` as ``fault`` makes them; ``source`` draws what a distribution leaves open."""
    if isinstance(fault, SlowFirstToken):
        late = fault.seconds
        late = float(late) if isinstance(late, int | float) else late.draw(source)
        return _slow_first_token(late, beats)
    return _REWRITES[type(fault)](fault, beats, dialect)


def _refuse(fault: Refuse, beats: Beats, dialect: ServerDialect) -> Beats:
    kind, code, message = STATUS_CODES.get(fault.status, STATUS_CODES[500])
    body = (
        fault.body.encode()
        if fault.body is not None
        else dialect.error_body(fault.status, kind, fault.code or code, fault.message or message)
    )
    headers = fault.headers
    if fault.retry_after is not None:
        headers = (*headers, _retry_after(fault.retry_after, fault.retry_form))
    return plain(fault.status, body, headers=headers)


def _retry_after(seconds: float, form: str) -> tuple[str, str]:
    if form == "milliseconds":
        return "retry-after-ms", f"{seconds * 1000:g}"
    if form == "date":
        # A date has whole seconds: rounded up, so that it is never sooner than was asked.
        return "retry-after", formatdate(math.ceil(time.time() + seconds), usegmt=True)
    return "retry-after", f"{seconds:g}"


def _reset(fault: Reset, beats: Beats, dialect: ServerDialect) -> Beats:
    yield Beat(0.0, "reset")


def _hang(fault: Hang, beats: Beats, dialect: ServerDialect) -> Beats:
    yield Beat(0.0, "hang") if fault.seconds is None else Beat(fault.seconds, "close")


def _hold(fault: Hold, beats: Beats, dialect: ServerDialect) -> Beats:
    yield Beat(0.0, "hold")
    yield from beats


def _silence(fault: Silence, beats: Beats, dialect: ServerDialect) -> Beats:
    yield next(beats)
    yield Beat(0.0, "hang")


def _slow_first_token(seconds: float, beats: Beats) -> Beats:
    waited = False
    for beat in beats:
        late = not waited and beat.part in ("open", "body")
        waited = waited or late
        yield beat._replace(wait=beat.wait + seconds) if late else beat


def _slow_tokens(fault: SlowTokens, beats: Beats, dialect: ServerDialect) -> Beats:
    for beat in beats:
        yield beat._replace(wait=fault.seconds) if beat.part == "token" else beat


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


def _cut(fault: Cut, beats: Beats, dialect: ServerDialect) -> Beats:
    head = next(beats)
    yield head
    # A plain body has a length, so it cannot end early and look whole.
    streamed = b"event-stream" in head.data
    clean = fault.how == "clean" and streamed
    ending = STREAM_END if clean else Beat(0.0, "reset" if fault.how == "reset" else "close")
    yield from _stop_after(fault.after, beats, (ending,))


def _stall(fault: Stall, beats: Beats, dialect: ServerDialect) -> Beats:
    if fault.seconds is None:
        return _stop_after(fault.after, beats, (Beat(0.0, "hang"),))
    if fault.then == "close":
        return _stop_after(fault.after, beats, (Beat(fault.seconds, "close"),))
    return _pause_after(fault.after, fault.seconds, beats)


def _pause_after(after: int, seconds: float, beats: Beats) -> Beats:
    sent, paused = 0, False
    for beat in beats:
        late = not paused and (
            beat.part in ("body", "finish") or (beat.part == "token" and sent == after)
        )
        paused, sent = paused or late, sent + (beat.part == "token")
        yield beat._replace(wait=beat.wait + seconds) if late else beat


def _invalid_event(fault: InvalidEvent, beats: Beats, dialect: ServerDialect) -> Beats:
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


def _duplicate(fault: DuplicateEvent, beats: Beats, dialect: ServerDialect) -> Beats:
    sent = 0
    for beat in beats:
        yield beat
        if beat.part == "token":
            if sent == fault.after:
                yield beat._replace(wait=0.0)
            sent += 1


_PAGE = b"<!doctype html><title>Gateway</title><h1>It works</h1>\n"


def _bad_body(fault: BadBody, beats: Beats, dialect: ServerDialect) -> Beats:
    head = next(beats)
    if fault.how == "html":
        yield from plain(200, _PAGE, head.wait, (("content-type", "text/html"),))
    elif b"event-stream" not in head.data:
        body = next(beats).data
        yield from plain(
            200, body[: len(body) // 2] if fault.how == "truncated" else b"", head.wait
        )
    else:
        yield head
        if fault.how == "truncated":
            first = next(beat for beat in beats if beat.part == "open")
            data = _lines(first.data)
            yield first._replace(data=chunk(data[: data.rindex(b"{") + 1]))
        yield STREAM_END


def _missing_field(fault: MissingField, beats: Beats, dialect: ServerDialect) -> Beats:
    head = next(beats)
    if b"event-stream" not in head.data:
        body = _without(fault.field, next(beats).data)
        yield from plain(int(head.data[9:12]), body, head.wait)
        return
    yield head
    for beat in beats:
        if beat.part in ("open", "token", "finish", "usage"):
            lines = [
                b"data: " + _without(fault.field, line[6:]) if line.startswith(b"data: {") else line
                for line in _lines(beat.data).split(b"\n")
            ]
            yield beat._replace(data=chunk(b"\n".join(lines)))
        else:
            yield beat


def _lines(data: bytes) -> bytes:
    """What chunks hold, without their framing."""
    held, at = b"", 0
    while at < len(data):
        start = data.index(b"\r\n", at) + 2
        end = start + int(data[at : start - 2], 16)
        held, at = held + data[start:end], end + 2
    return held


def _without(field: str, data: bytes) -> bytes:
    return encode(_pruned(field, msgspec.json.decode(data)))


def _pruned(field: str, value: object) -> object:
    if isinstance(value, dict):
        return {name: _pruned(field, part) for name, part in value.items() if name != field}
    return [_pruned(field, part) for part in value] if isinstance(value, list) else value


def _missing_done(fault: MissingDone, beats: Beats, dialect: ServerDialect) -> Beats:
    return (beat for beat in beats if beat.part != "done")


def _error_event(fault: ErrorEvent, beats: Beats, dialect: ServerDialect) -> Beats:
    kind, code, _ = STATUS_CODES[500]
    body = dialect.error_body(500, kind, code, fault.message)
    head = next(beats)
    if b"event-stream" not in head.data:
        yield from plain(200, body, head.wait)
        return
    yield head
    error = Beat(0.0, "finish", dialect.error_event(body))
    yield from _stop_after(fault.after, beats, (error, STREAM_END))


def _drip(fault: Drip, beats: Beats, dialect: ServerDialect) -> Beats:
    for beat in beats:
        if beat.part == "head" or not beat.data:
            yield beat
            continue
        wait = beat.wait
        for at in range(0, len(beat.data), fault.size):
            yield beat._replace(wait=wait, data=beat.data[at : at + fault.size])
            wait = fault.seconds


def _as_it_is(fault: Fault, beats: Beats, dialect: ServerDialect) -> Beats:
    """The reply is made so, and the dialect writes it as it is."""
    return beats


_REWRITES: dict[type, Callable[[Any, Beats, ServerDialect], Beats]] = {
    Refuse: _refuse,
    Reset: _reset,
    Hang: _hang,
    Hold: _hold,
    Silence: _silence,
    SlowTokens: _slow_tokens,
    Cut: _cut,
    Stall: _stall,
    InvalidEvent: _invalid_event,
    DuplicateEvent: _duplicate,
    BadBody: _bad_body,
    MissingField: _missing_field,
    MissingDone: _missing_done,
    ErrorEvent: _error_event,
    Drip: _drip,
    Mutate: _as_it_is,
    Filtered: _as_it_is,
    NoUsage: _as_it_is,
    UsageWithChoices: _as_it_is,
}
