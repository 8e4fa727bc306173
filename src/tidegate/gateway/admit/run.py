"""Admission: check the key, read the body within its bound, find the route."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from tidegate.base.errors import RequestError
from tidegate.gateway.admit.headers import bearer, read_context
from tidegate.gateway.admit.switched import Switchboard
from tidegate.gateway.values import Call
from tidegate.gateway.wire.http_server import Request
from tidegate.gateway.wire.openai import ChatHead, EmbeddingsHead
from tidegate.switches import PRIORITIES, Priority

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_heads: dict[str, msgspec.json.Decoder[Any]] = {
    "chat": msgspec.json.Decoder(ChatHead),
    "embeddings": msgspec.json.Decoder(EmbeddingsHead),
}


class Door(Protocol):
    """What admission asks of the worker's state."""

    @property
    def routes(self) -> Mapping[str, Any]: ...

    @property
    def max_body_bytes(self) -> int: ...

    @property
    def keys_required(self) -> bool: ...

    @property
    def switchboard(self) -> Switchboard | None: ...

    def steer(self, call: Call) -> None: ...

    def find_key(self, token: str | None, now: float) -> Any: ...


def admit(door: Door, call: Call, kind: str, request: Request) -> None:
    """Fill in who asks, what is asked, and the plan of the route. Raises RequestError."""
    read_context(request, call)
    record = None
    if door.keys_required:
        record = door.find_key(bearer(request.header(b"authorization")), call.at)
        call.key_id, call.tenant = record.id, record.tenant
    call.body = body_of(request, door.max_body_bytes)
    call.kind = kind
    head = parse(call, kind)
    if head.tidegate is not None and head.tidegate.journey:
        call.journey = head.tidegate.journey
    call.plan = find_route(door.routes, head.model, kind)
    if call.journey is not None and call.journey not in call.plan.journeys:
        call.journey = "other"  # labels stay bounded: only declared journeys have a name
    door.steer(call)
    if door.switchboard is not None:
        door.switchboard.admit(call)
    if call.plan.route.queue is not None:
        own: Priority = record.priority if record is not None else "normal"
        asked = head.tidegate.priority if head.tidegate is not None else None
        call.priority = priority_of(own, asked, request.header(b"x-tidegate-priority"))


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


def body_of(request: Request, limit: int) -> bytes:
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


def parse(call: Call, kind: str) -> Any:
    """Decode the body twice: its known fields typed, all of its fields raw, to pass them on."""
    try:
        if not call.body.isascii():
            call.body.decode()  # the decoders skip what they do not read, and it is passed on
        call.head = head = _heads[kind].decode(call.body)
        call.fields = _fields.decode(call.body)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        ours = path.startswith(".tidegate")
        raise RequestError(
            400,
            "request_invalid",
            f"{message} at {path.rstrip('`').lstrip('.') or 'the top of the body'}",
            cure="write it as docs/http-api.md says, or leave it out"
            if ours
            else "send the types that the OpenAI API reference documents",
            param=path.rstrip("`").lstrip(".") or None,
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(
            400,
            "json_malformed",
            f"the body is not JSON: {error}",
            cure="send one JSON object with content-type application/json",
        ) from None
    for name in call.fields:
        if name not in _CHECKED and name.casefold() in _CHECKED:
            raise _twin(name)
    return head


_CHECKED = frozenset(("model", "tidegate", "messages", "input", "stream", "stream_options"))
_CHECKED |= {"max_tokens", "max_completion_tokens", "n", "tools", "temperature", "response_format"}
_CHECKED |= {"n_predict"}


def _twin(name: str) -> RequestError:
    """Some upstreams read names without regard to case (Go does), and the last one wins there:
    ``Max_Tokens`` would pass by the cap that holds ``max_tokens``."""
    return RequestError(
        400,
        "request_invalid",
        f"the field {name[:40]!r} differs from {name.casefold()[:40]!r} only by its case",
        cure="write the names of fields as the OpenAI API reference does",
        param=name[:40],
    )


def find_model(named: Mapping[str, Any], name: str) -> Any:
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


def find_route(routes: Mapping[str, Any], name: str, kind: str) -> Any:
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
