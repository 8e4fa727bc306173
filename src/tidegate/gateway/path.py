"""The path of one request, top to bottom: admit, render, limits, cache, queue, route, call, guard,
record."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter_ns

import msgspec

from tidegate.base.errors import RequestError
from tidegate.gateway.admit import admit, model_killed
from tidegate.gateway.cache import Flight
from tidegate.gateway.call import Stream, Target, ask_stream, ask_whole, join_chunks
from tidegate.gateway.door import Door
from tidegate.gateway.record import settle
from tidegate.gateway.render import clamp_surge, render
from tidegate.gateway.route import choose
from tidegate.gateway.stand_in import stand_in
from tidegate.gateway.values import Answer, Call, Headers
from tidegate.gateway.wire.http_server import Request, Response
from tidegate.gateway.wire.openai import error_event
from tidegate.gateway.wire.upstream import FAULTS, UpstreamFault
from tidegate.ledger.receipts import Outcome

DONE = b"data: [DONE]\n\n"


async def serve(door: Door, call: Call, kind: str, request: Request, out: Response) -> None:
    """Answer one request. Raises RequestError while nothing has been sent to the client."""
    admit(door, call, kind, request)
    call.deadline = asyncio.get_running_loop().time() + call.plan.route.timeouts.total
    again = await door.idempotency.look(call, request.header(b"idempotency-key"))
    call.leave("admit", perf_counter_ns())
    if again is not None:
        call.served_by = "cache"
        await _replay(door, call, again, out)
        return
    flight = place = None
    try:
        await render(call)
        call.leave("render", perf_counter_ns())

        kept = still_served(call, door.cache.at_hand(call, request.header(b"cache-control")))
        door.limits.reserve(call, kept)  # leaves in one write with the cache's command
        if kept is None:
            kept, flight = await door.cache.look(call)
            kept = still_served(call, kept)
        await door.limits.granted(call, kept)
        call.leave("cache", perf_counter_ns())
        if kept is not None:
            call.served_by = "cache"
            await _replay(door, call, kept, out)
            return

        place = await door.queue.enter(call)
        clamp_surge(call, door.queue.surging(call))
        try:
            chain = choose(allowed(call), call.upstream)
            call.leave("route", perf_counter_ns())
            await _ask(door, call, chain.targets, flight, out)
        except RequestError as error:  # nothing was sent yet
            instead = await stand_in(door.cache, call, error)
            if instead is None:
                call.served_by = None
                raise
            _unserved(call, error)
            call.leave("guard" if "call" in call.stages else "call", perf_counter_ns())
            await _replay(door, call, instead, out)
    except RequestError as error:
        if call.again is not None:
            call.again.refuse(call, error)
        raise
    finally:
        if place is not None:
            place.leave()
        if flight is not None:
            door.cache.leave(flight)
        if call.again is not None:
            call.again.leave()


async def _ask(
    door: Door, call: Call, targets: Sequence[Target], flight: Flight | None, out: Response
) -> None:
    if call.stream and call.plan.route.hold == "first_content":
        stream = await ask_stream(call, targets)
        await _relay(door, call, stream, flight, out)
    else:
        answer = await ask_whole(call, targets)
        await _return(door, call, answer, flight, out)


def _by(call: Call, model: str) -> None:
    """``model`` answered."""
    call.model = model
    first: str = call.plan.route.models[0]
    call.served_by = "model" if model == first else "fallback"


def still_served(call: Call, kept: Answer | None) -> Answer | None:
    """A kept answer, unless the model that gave it is killed."""
    if kept is None or call.switched is None or kept.model not in call.switched.models:
        return kept
    call.cache = "bypass"
    return None


def allowed(call: Call) -> list[Target]:
    """The targets of the route, but those that are killed, and those whose own limit has nothing
    left. Raises RequestError when none is left."""
    targets: list[Target] = call.plan.targets
    barred = frozenset() if call.loan is None else call.loan.barred
    if call.switched is not None:
        barred |= call.switched.models
    if not barred:
        return targets
    left = [target for target in targets if target.model.name not in barred]
    if not left:
        raise model_killed(call.plan.route.name, [t.model.name for t in targets])
    return left


def _unserved(call: Call, error: RequestError) -> None:
    """What stands in for an answer has a model and a cost of its own. An answer that came, and that
    the guard refused, is a failed try from here on, with what it is billed."""
    if call.attempts and call.attempts[-1].code is None:
        last = msgspec.structs.replace(call.attempts[-1], code=error.code, usage=call.usage)
        call.attempts[-1], call.usage = last, None


async def _return(
    door: Door, call: Call, answer: Answer, flight: Flight | None, out: Response
) -> None:
    """A whole answer, streamed or not: guard it, keep it, record it, send it."""
    call.leave("call", perf_counter_ns())
    _by(call, answer.model)
    call.usage, call.finish = answer.usage, answer.finish
    if not answer.stream:
        call.answer_content = answer.body
    elif call.plan.route.store_content:
        call.answer_content = join_chunks(answer.body, answer.model)
    if call.usage is None:
        settle(call, call.upstream.get("messages", b""), answer.content or "")
    if call.plan.guard is not None:
        if not call.guarded:
            call.plan.guard.check(answer)
        call.leave("guard", perf_counter_ns())
    if flight is not None:
        door.cache.keep(flight, answer, call.plan.route.cache_ttl)
    door.cache.remember(call, answer)
    if call.again is not None:
        call.again.keep(answer)
    call.status, call.outcome = 200, "served"
    if answer.stream:
        await _stream_out(door, call, door.headers(call), answer.body, out)
        return
    door.record(call)
    out.whole(200, door.headers(call), answer.body)


async def _stream_out(door: Door, call: Call, headers: Headers, body: bytes, out: Response) -> None:
    """The events of a complete answer, all at once."""
    out.begin(door.stream_headers(headers))
    await out.send(body)
    call.first_token = (perf_counter_ns() - call.started) / 1e6
    door.record(call)
    out.end(DONE)


async def _replay(door: Door, call: Call, answer: Answer, out: Response) -> None:
    """An answer that was kept: it was guarded when it was made, so it is only recorded."""
    if call.again is not None and call.served_by == "cache":  # else a retry may do better
        call.again.keep(answer)
    call.stream = answer.stream
    call.model, call.replayed, call.finish = answer.model, answer.usage, answer.finish
    call.status, call.outcome = 200, "served"
    if not answer.stream:
        call.answer_content = answer.body
        door.record(call)
        out.whole(200, door.headers(call, answer.stored_at), answer.body)
        return
    if call.plan.route.store_content:
        call.answer_content = join_chunks(answer.body, answer.model)
    await _stream_out(door, call, door.headers(call, answer.stored_at), answer.body, out)


async def _relay(
    door: Door, call: Call, stream: Stream, flight: Flight | None, out: Response
) -> None:
    """A stream past its commit point: each event goes out as it comes; a failure is told in-band
    and never looks like an ending."""
    _by(call, stream.target.model.name)
    sent: list[bytes] = []
    kept = flight is not None or call.again is not None or call.plan.route.stale is not None
    code: str | None = "client_gone"
    try:
        out.begin(door.stream_headers(door.headers(call)))
        while data := await stream.next():
            await out.send(data)
            if call.first_token is None:
                call.first_token = (perf_counter_ns() - call.started) / 1e6
            if kept:
                sent.append(data)
        code = None
        answer = stream.answer(b"".join(sent))
        call.leave("call", perf_counter_ns())
        call.usage, call.finish = answer.usage, answer.finish
        _content_of(call, stream)
        if call.plan.guard is not None:
            call.plan.guard.check(answer)
            call.leave("guard", perf_counter_ns())
        if flight is not None:
            door.cache.keep(flight, answer, call.plan.route.cache_ttl)
        door.cache.remember(call, answer)
        if call.again is not None:
            call.again.keep(answer)
        stream.close()
        call.status, call.outcome = 200, "served"
        door.record(call)
        out.end(DONE)
    except UpstreamFault as fault:
        code = fault.code
        _break_off(door, call, stream, _told(fault, stream), "upstream_cut", out)
    except RequestError as error:  # the guard: what was streamed is not what was promised
        _break_off(door, call, stream, error, "failed", out)
    finally:
        if not call.recorded:
            _content_of(call, stream)
            call.usage = stream.billed
        stream.close(code)


def _content_of(call: Call, stream: Stream) -> None:
    """What has come, for the ledger: put together only where the route keeps it."""
    if call.plan.route.store_content:
        call.answer_content = stream.reader.assembled()


def _break_off(
    door: Door, call: Call, stream: Stream, error: RequestError, outcome: Outcome, out: Response
) -> None:
    call.leave("guard" if "call" in call.stages else "call", perf_counter_ns())
    _content_of(call, stream)
    call.status, call.code, call.outcome = 200, error.code, outcome
    call.usage = stream.billed
    stream.close(error.code)
    door.record(call)
    out.end(error_event(error))


def _told(fault: UpstreamFault, stream: Stream) -> RequestError:
    return RequestError(
        FAULTS[fault.code],
        fault.code,
        f"the answer broke off: {stream.target.tell(fault.words)}",
        cure="discard what came and send the request again",
    )
