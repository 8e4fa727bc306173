"""Admission: check the key, read the body within its bound, find the route and what serves it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Protocol, TypeVar

import msgspec

from tidegate.base import RequestError
from tidegate.gateway.admit.headers import bearer, read_context
from tidegate.gateway.admit.switched import Switchboard
from tidegate.gateway.journal import Journal
from tidegate.gateway.plan import Plan
from tidegate.gateway.ports import ClientDialect, ClientRequest, RouteKind
from tidegate.gateway.values import Caller, Request, Steering
from tidegate.gateway.wire.http_server import HttpRequest
from tidegate.switches import PRIORITIES, KeyRecord, Priority

M = TypeVar("M")


class Steer(Protocol):
    """Chooses release and variant; see ``releases.Releases.steer``."""

    def __call__(
        self, plan: Plan, client: ClientRequest, caller: Caller, journey: str | None, id: str
    ) -> Steering: ...


class AdmissionState(Protocol):
    """What admission asks of the worker's state."""

    @property
    def routes(self) -> Mapping[str, Plan]: ...

    @property
    def max_body_bytes(self) -> int: ...

    @property
    def keys_required(self) -> bool: ...

    @property
    def switchboard(self) -> Switchboard | None: ...

    @property
    def steer(self) -> Steer: ...

    def find_key(self, token: str | None, now: float) -> KeyRecord: ...


def admit(
    gate: AdmissionState, journal: Journal, dialect: ClientDialect, http: HttpRequest, now: float
) -> Request:
    """Who asks, what is asked, and what serves it; ``now`` is the loop's time. Raises RequestError.

    What is learned goes on the journal at once, so that the receipt of a refusal has it too."""
    journal.context = context = read_context(http)
    if gate.keys_required:
        record = gate.find_key(bearer(http.header(b"authorization")), journal.at)
        journal.caller = Caller(record.id, record.tenant, record.priority)
    journal.body = body_of(http, gate.max_body_bytes)
    client = dialect.parse(journal.body)
    journal.stream = client.ask.stream
    journey = client.extension.journey or context.journey
    plan = find_route(gate.routes, client.model, dialect.kind)
    if journey is not None and journey not in plan.journeys:
        journey = "other"  # labels stay bounded: only declared journeys have a name
    if journey != context.journey:
        journal.context = msgspec.structs.replace(context, journey=journey)
    steering = gate.steer(plan, client, journal.caller, journey, journal.id)
    journal.steering = steering
    plan = steering.plan
    switched = None
    if gate.switchboard is not None:
        switched = gate.switchboard.admit(plan, journal.caller.tenant)
    priority = 1
    if plan.route.queue is not None:
        asked, header = client.extension.priority, http.header(b"x-tidegate-priority")
        priority = priority_of(journal.caller.priority, asked, header)
    request = Request(
        journal.id,
        journal.at,
        now + plan.route.timeouts.total,
        dialect,
        client.ask,
        client.body_fields,
        client.extension,
        journal.caller,
        plan,
        switched,
        priority,
    )
    journal.request = request
    return request


def priority_of(own: Priority, asked: str | None, header: str | None) -> int:
    """The class in the queue: the key's, or a lower one that the body or the header asks for."""
    if header is not None and header.strip().lower() not in PRIORITIES:
        raise RequestError(
            400,
            "priority_unknown",
            f"the header x-tidegate-priority says {header[:40]!r}",
            cure="write high, normal or low",
        )
    named = (own, asked, header and header.strip().lower())
    return max(PRIORITIES.index(one) for one in named if one)


def body_of(request: HttpRequest, limit: int) -> bytes:
    """The body as it came. Raises RequestError when it was too large or is encoded."""
    if request.too_large:
        raise _too_large(limit)
    encoding = request.header(b"content-encoding")
    if encoding is not None and encoding.lower() != "identity":
        raise RequestError(
            415,
            "encoding_unsupported",
            f"the body is encoded as {encoding[:40]!r}",
            cure="send the body without content-encoding",
        )
    return request.body


def _too_large(limit: int) -> RequestError:
    return RequestError(
        413,
        "body_too_large",
        f"the body is larger than {limit} bytes",
        cure="send less, or raise gateway.max_body in tidegate.yaml",
    )


def find_model(named: Mapping[str, M], name: str) -> M:
    """What ``model`` names. Raises RequestError with the nearest name."""
    found = named.get(name)
    if found is None:
        near = difflib.get_close_matches(name[:200], named, n=1)
        known = ", ".join(sorted(named)[:20]) or "none"
        raise RequestError(
            404,
            "route_unknown",
            f"there is no route {name[:200]!r}",
            cure=f"did you mean {near[0]!r}?" if near else f"routes are: {known}",
            param="model",
        )
    return found


def find_route(routes: Mapping[str, Plan], name: str, kind: RouteKind) -> Plan:
    """The plan of the route (or direct model) ``name``, for requests of this kind."""
    plan = find_model(routes, name)
    if plan.route.kind != kind:
        raise RequestError(
            400,
            "route_kind_mismatch",
            f"route {name!r} is for {plan.route.kind}, not for {kind}",
            cure="call /v1/chat/completions for chat routes, /v1/embeddings for embeddings routes",
            param="model",
        )
    return plan
