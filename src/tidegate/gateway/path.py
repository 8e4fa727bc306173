"""The path of one request, top to bottom: admit, render, cache, route, call, guard, record."""

from __future__ import annotations

import asyncio
from time import perf_counter_ns

from tidegate.base.errors import RequestError
from tidegate.gateway.admit import admit
from tidegate.gateway.cache import Flight
from tidegate.gateway.call import Stream, ask_stream, ask_whole, join_chunks
from tidegate.gateway.door import Door
from tidegate.gateway.record import settle
from tidegate.gateway.render import render
from tidegate.gateway.route import choose
from tidegate.gateway.values import Answer, Call
from tidegate.gateway.wire.http_server import Request, Response
from tidegate.gateway.wire.openai import error_event
from tidegate.gateway.wire.upstream import FAULTS, UpstreamFault
from tidegate.ledger.receipts import Outcome

DONE = b"data: [DONE]\n\n"


async def serve(door: Door, call: Call, kind: str, request: Request, out: Response) -> None:
    """Answer one request. Raises RequestError while nothing has been sent to the client."""
    admit(door, call, kind, request)
    call.deadline = asyncio.get_running_loop().time() + call.plan.route.timeouts.total
    call.leave("admit", perf_counter_ns())

    await render(call)
    call.leave("render", perf_counter_ns())

    kept, flight = await door.cache.look(call, request.header(b"cache-control"))
    call.leave("cache", perf_counter_ns())
    if kept is not None:
        await _replay(door, call, kept, out)
        return
    try:
        chain = choose(call.plan.targets)
        call.leave("route", perf_counter_ns())
        if call.stream:
            stream = await ask_stream(call, chain.targets)
            await _relay(door, call, stream, flight, out)
        else:
            answer = await ask_whole(call, chain.targets)
            await _return(door, call, answer, flight, out)
    finally:
        if flight is not None:
            door.cache.leave(flight)


async def _return(
    door: Door, call: Call, answer: Answer, flight: Flight | None, out: Response
) -> None:
    """A whole answer: guard it, keep it, record it, send it."""
    call.leave("call", perf_counter_ns())
    call.model, call.usage, call.finish = answer.model, answer.usage, answer.finish
    call.answer_content = answer.body
    if call.usage is None:
        settle(call, call.upstream.get("messages", b""), answer.content or "")
    if call.plan.guard is not None:
        call.plan.guard.check(answer)
        call.leave("guard", perf_counter_ns())
    if flight is not None:
        door.cache.keep(flight, answer, call.plan.route.cache_ttl)
    call.status, call.outcome = 200, "served"
    door.record(call)
    out.whole(200, door.headers(call), answer.body)


async def _replay(door: Door, call: Call, answer: Answer, out: Response) -> None:
    """An answer from the cache: it was guarded when it was made, so it is only recorded."""
    call.model, call.replayed, call.finish = answer.model, answer.usage, answer.finish
    call.status, call.outcome = 200, "served"
    if not answer.stream:
        call.answer_content = answer.body
        door.record(call)
        out.whole(200, door.headers(call, answer.stored_at), answer.body)
        return
    if call.plan.route.store_content:
        call.answer_content = join_chunks(answer.body, answer.model)
    out.begin(door.stream_headers(door.headers(call, answer.stored_at)))
    await out.send(answer.body)
    call.first_token = (perf_counter_ns() - call.started) / 1e6
    door.record(call)
    out.end(DONE)


async def _relay(
    door: Door, call: Call, stream: Stream, flight: Flight | None, out: Response
) -> None:
    """A stream past its commit point: each event goes out as it comes; a failure is told in-band
    and never looks like an ending."""
    call.model = stream.target.model.name
    sent: list[bytes] = []
    code: str | None = "client_gone"
    try:
        out.begin(door.stream_headers(door.headers(call)))
        while data := await stream.next():
            await out.send(data)
            if call.first_token is None:
                call.first_token = (perf_counter_ns() - call.started) / 1e6
            if flight is not None:
                sent.append(data)
        code = None
        answer = stream.answer(b"".join(sent))
        call.leave("call", perf_counter_ns())
        call.usage, call.finish = answer.usage, answer.finish
        call.answer_content = stream.reader.assembled()
        if call.usage is None:
            settle(call, call.upstream["messages"], answer.content or "")
        if call.plan.guard is not None:
            call.plan.guard.check(answer)
            call.leave("guard", perf_counter_ns())
        if flight is not None:
            door.cache.keep(flight, answer, call.plan.route.cache_ttl)
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
            call.answer_content = stream.reader.assembled()
            call.usage, call.partial_text = stream.usage, stream.reader.text()
        stream.close(code)


def _break_off(
    door: Door, call: Call, stream: Stream, error: RequestError, outcome: Outcome, out: Response
) -> None:
    call.leave("guard" if "call" in call.stages else "call", perf_counter_ns())
    call.answer_content = stream.reader.assembled()
    call.status, call.code, call.outcome = 200, error.code, outcome
    call.usage = stream.usage
    stream.close(error.code)
    settle(call, call.upstream["messages"], stream.reader.text())
    door.record(call)
    out.end(error_event(error))


def _told(fault: UpstreamFault, stream: Stream) -> RequestError:
    return RequestError(
        FAULTS[fault.code],
        fault.code,
        f"the answer broke off: {stream.target.tell(fault.words)}",
        cure="discard what came and send the request again",
    )
