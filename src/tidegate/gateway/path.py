"""The path of one request, top to bottom: admit, idempotency, render, cache and limits, queue,
route, call, guard. ``finish`` writes the receipt (``record``) and ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter_ns

from tidegate.base import RequestError
from tidegate.gateway.admit import admit
from tidegate.gateway.cache import Flight, Lookup
from tidegate.gateway.call import Stream, ask_stream, ask_whole
from tidegate.gateway.guard import StreamGuard, require
from tidegate.gateway.idempotency import IdempotencyHold
from tidegate.gateway.journal import Journal
from tidegate.gateway.killed import model_killed
from tidegate.gateway.ports import Ask, ClientDialect
from tidegate.gateway.render import clamp_surge, render
from tidegate.gateway.route import choose
from tidegate.gateway.stand_in import stand_in
from tidegate.gateway.targets import Target
from tidegate.gateway.values import Answer, Ending, Grant, Request
from tidegate.gateway.wire.http_server import HttpRequest, HttpResponse
from tidegate.gateway.wire.upstream import FAULTS, UpstreamFault
from tidegate.gateway.worker_state import WorkerState, stream_headers
from tidegate.ledger import Outcome


async def serve(
    state: WorkerState,
    dialect: ClientDialect,
    http: HttpRequest,
    out: HttpResponse,
    journal: Journal,
) -> Ending:
    """Answer one request. Raises RequestError while nothing has been sent to the client."""
    request = admit(state, journal, dialect, http, asyncio.get_running_loop().time())
    hold: IdempotencyHold | None = None
    if (key := http.header(b"idempotency-key")) is not None:
        journal.enter("idempotency")
        found = await state.idempotency.look(request, key)
        if not isinstance(found, IdempotencyHold):
            journal.cache = "idempotent"
            if isinstance(found, RequestError):
                raise found
            return await _replay(state, journal, request, found, out)
        hold = found
    try:
        answering = _Answering(state, journal, request, hold, out)
        return await answering.answer(http.header(b"cache-control"))
    except RequestError as error:
        if hold is not None:
            hold.refuse(error, asked=journal.asked)
        raise
    finally:
        if hold is not None:
            hold.leave()


class _Answering:
    """One admitted request on its way to an answer, and who waits for the same answer."""

    def __init__(
        self,
        state: WorkerState,
        journal: Journal,
        request: Request,
        hold: IdempotencyHold | None,
        out: HttpResponse,
    ) -> None:
        self._state = state
        self._journal = journal
        self._request = request
        self._hold = hold
        self._out = out
        self._flight: Flight | None = None
        self._key: bytes | None = None
        """Under which the answer may be kept in the cache."""

    async def answer(self, control: str | None) -> Ending:
        """``control``: the header cache-control."""
        state, journal, request = self._state, self._journal, self._request
        journal.enter("render")
        rendered = await render(request)
        journal.capped = rendered.capped
        if rendered.reason is not None:
            journal.note("render", rendered.reason)
        ask, place = rendered.ask, None
        try:
            kept, grant = await self._kept(ask, control)
            if kept is not None:
                if self._hold is not None:
                    self._hold.keep(kept)
                return await _replay(state, journal, request, kept, self._out)
            if request.plan.route.queue is not None:
                journal.enter("queue")
                began = perf_counter_ns()
                try:
                    place = await state.queue.enter(request)
                finally:
                    journal.queued = (perf_counter_ns() - began) // 1000 / 1000
            journal.enter("route")
            clamped = clamp_surge(ask, request.plan, state.queue.surging(request))
            if clamped.reason is not None:
                journal.capped = clamped.capped
                journal.note("queue", clamped.reason)
            try:
                chain = choose(allowed(request, grant), ask)
                if len(request.plan.targets) > 1:  # else there was nothing to choose
                    journal.note("route", chain.reason)
                return await self._ask(clamped.ask, chain.targets)
            except RequestError as error:  # nothing was sent yet
                return await self._stand_in(error)
        finally:
            if place is not None:
                place.leave()
            if self._flight is not None:
                state.cache.leave(self._flight)

    # -- cache and limits -----------------------------------------------------------------------

    async def _kept(self, ask: Ask, control: str | None) -> tuple[Answer | None, Grant | None]:
        """A kept answer, and what the limits grant. The limits are asked before the cache has
        answered, so that both commands leave in one write."""
        state, journal, request = self._state, self._journal, self._request
        journal.enter("cache")
        look = state.cache.at_hand(request, ask, control)
        if request.switched is not None:
            look = still_served(request, look)
        made = None
        if request.plan.limits is not None:
            journal.enter("limits")
            made = state.limits.reserve(journal, request, ask, look.answer)
        if look.answer is None and look.key is not None:
            journal.enter("cache")
            look = await state.cache.look(request, look)
            self._flight = look.flight
            if request.switched is not None:
                look = still_served(request, look)
        journal.cache, self._key = look.result, look.key
        if look.reason is not None:
            journal.note("cache", look.reason)
        if made is None:
            return look.answer, None
        journal.enter("limits")
        return look.answer, await state.limits.granted(journal, request, made, look.answer)

    # -- asking models --------------------------------------------------------------------------

    async def _ask(self, ask: Ask, targets: Sequence[Target]) -> Ending:
        state, journal, request = self._state, self._journal, self._request
        route, terms = request.plan.route, request.plan.terms
        journal.enter("call")
        if ask.stream and route.hold == "first_content":
            stream = await ask_stream(journal, ask, targets, terms, request.deadline)
            return await self._relay(stream)
        answered = await ask_whole(journal, ask, targets, terms, request.deadline)
        answer = answered.answer
        self._by(answer.model)
        if route.store_content:
            journal.content = content_of(request, answer)
        if request.plan.checks and not answered.checked:
            journal.enter("guard")
            try:
                require(request.plan.checks, answer.model, answer.facts)
            except RequestError as error:
                answered.attempt.reject(error.code, answer.usage)
                raise
        answered.attempt.answer(answer.usage)
        journal.enter(None)
        self._keep(answer)
        body = answer.body
        if answer.stream:
            body = await _stream_out(state, journal, request, answer, self._out)
        return Ending(status=200, outcome="served", finish=answer.finish, body=body)

    async def _stand_in(self, error: RequestError) -> Ending:
        """What is given instead of ``error``. Raises it when there is nothing."""
        state, journal, request = self._state, self._journal, self._request
        journal.enter(None)
        instead = await stand_in(state.cache, request, self._key, error)
        journal.served_by = None if instead is None else instead.served_by
        if instead is None:
            raise error
        journal.note("call", f"{instead.served_by} instead of {error.code}")
        return await _replay(state, journal, request, instead.answer, self._out)

    def _by(self, model: str) -> None:
        """``model`` answered."""
        self._journal.model = model
        first = self._request.plan.route.models[0]
        self._journal.served_by = "model" if model == first else "fallback"

    def _keep(self, answer: Answer) -> None:
        """Keep a whole answer that holds to the checks: in the cache, as a stale answer, and under
        the idempotency key."""
        cache, route = self._state.cache, self._request.plan.route
        if self._flight is not None and route.cache_ttl is not None:
            cache.keep(self._flight, answer, route.cache_ttl)
        cache.remember(self._request, self._key, answer)
        if self._hold is not None:
            self._hold.keep(answer)

    # -- streams --------------------------------------------------------------------------------

    async def _relay(self, stream: Stream) -> Ending:
        """A stream past its commit point: each event goes out as it comes; a failure is told
        in-band and never looks like an ending."""
        state, journal, request, out = self._state, self._journal, self._request, self._out
        self._by(stream.target.model.name)
        kept: list[bytes] | None = [] if self._is_kept() else None
        guard = StreamGuard(request.plan.checks, stream.target.model.name)
        code = "client_gone"
        try:
            out.begin(stream_headers(state.headers(journal)))
            while data := await stream.next():
                if guard.looks:
                    guard.look(stream.said)
                await out.send(data)
                if journal.first_token is None:
                    journal.first_token = (perf_counter_ns() - journal.started) / 1e6
                if kept is not None:
                    kept.append(data)
            answer = stream.answer(b"".join(kept or ()))
            if request.plan.checks:
                journal.enter("guard")
                require(request.plan.checks, answer.model, answer.facts)
            journal.enter(None)
            self._keep(answer)
            stream.release()
            stream.attempt.answer(answer.usage, stream.skipped)
        except UpstreamFault as fault:
            code = fault.code
            return _broken_off(request.dialect, _telling(fault, stream), "upstream_cut")
        except RequestError as error:  # a check: what was streamed is not what was promised
            code = error.code
            return _broken_off(request.dialect, error, "failed")
        finally:
            if request.plan.route.store_content:
                journal.content = stream.assembled()
            stream.drop(code)
            stream.attempt.break_off(code, stream.skipped)
        return Ending(
            status=200, outcome="served", finish=answer.finish, body=request.dialect.stream_end
        )

    def _is_kept(self) -> bool:
        """Whether the bytes of a stream are needed once more."""
        stale = self._request.plan.route.stale
        return self._flight is not None or self._hold is not None or stale is not None


def still_served(request: Request, look: Lookup) -> Lookup:
    """A kept answer, unless the model that gave it is killed."""
    if look.answer is None or look.answer.model not in request.killed_models:
        return look
    words = f"the kept answer is of {look.answer.model}, which is switched off"
    return Lookup("bypass", look.key, reason=words)


def allowed(request: Request, grant: Grant | None) -> Sequence[Target]:
    """The targets of the route, but those that are killed, and those whose own limit has nothing
    left. Raises RequestError when none is left."""
    targets = request.plan.targets
    barred = request.killed_models if grant is None else request.killed_models | grant.barred
    if not barred:
        return targets
    left = [target for target in targets if target.model.name not in barred]
    if not left:
        raise model_killed(request.plan.route.name, [t.model.name for t in targets])
    return left


def content_of(request: Request, answer: Answer) -> bytes:
    """JSON of an answer, for the ledger."""
    return request.dialect.join(answer.body, answer.model) if answer.stream else answer.body


async def _replay(
    state: WorkerState, journal: Journal, request: Request, kept: Answer, out: HttpResponse
) -> Ending:
    """The end of a request with a kept answer or a stand-in: it held to the checks when it was
    made."""
    journal.model = kept.model
    if journal.served_by is None:
        journal.served_by = "cache"
    journal.stream = kept.stream
    if request.plan.route.store_content:
        journal.content = content_of(request, kept)
    journal.enter(None)
    return Ending(
        status=200,
        outcome="served",
        finish=kept.finish,
        body=await _stream_out(state, journal, request, kept, out) if kept.stream else kept.body,
        replayed=kept.usage,
        stored_at=kept.stored_at,
    )


async def _stream_out(
    state: WorkerState, journal: Journal, request: Request, answer: Answer, out: HttpResponse
) -> bytes:
    """Send the events of a whole answer at once. The end follows the receipt: it is returned."""
    out.begin(stream_headers(state.headers(journal, answer.stored_at)))
    await out.send(answer.body)
    journal.first_token = (perf_counter_ns() - journal.started) / 1e6
    return request.dialect.stream_end


def _broken_off(dialect: ClientDialect, error: RequestError, outcome: Outcome) -> Ending:
    """The end of a stream that had begun and broke off: the error is sent in-band."""
    return Ending(status=200, outcome=outcome, code=error.code, body=dialect.error_event(error))


def _telling(fault: UpstreamFault, stream: Stream) -> RequestError:
    return RequestError(
        FAULTS[fault.code],
        fault.code,
        f"the answer broke off: {stream.target.tell(fault.words)}",
        cure="discard what came and send the request again",
    )
