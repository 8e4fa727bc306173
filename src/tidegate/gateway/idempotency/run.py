"""Idempotency keys of one worker: hold a key, wait for its holder, or replay its outcome.

A key is held by a short lease that is renewed while the request runs, so a worker that is killed
frees it within seconds. The promise needs the store: while it is away a request that asks for
idempotency is refused, for two answers are worse than none to who asks for that.
"""

from __future__ import annotations

import asyncio
import time

import hiredis
import msgspec

from tidegate.base import RequestError
from tidegate.gateway.idempotency.rules import (
    Malformed,
    fingerprint,
    keeps_refusal,
    read_key,
    store_key,
)
from tidegate.gateway.values import Answer, Request
from tidegate.stores import ENTRY, LEASE, Leases, ValkeyClient, ValkeyDown

LEASE_SECONDS = 9.0
_LARGEST = 4 << 20


class Refusal(msgspec.Struct, frozen=True):
    """The error that a model answered with, as it is replayed."""

    status: int
    code: str
    message: str
    cure: str
    param: str | None


class KeptOutcome(msgspec.Struct, frozen=True):
    """The outcome of a request: an answer, a refusal, or (neither) an answer too large to keep."""

    answer: Answer | None = None
    refusal: Refusal | None = None


_decoder = msgspec.msgpack.Decoder(KeptOutcome)
_encoder = msgspec.msgpack.Encoder()


class IdempotencyStatistics(msgspec.Struct, frozen=True):
    held: int
    """Keys that requests of this worker hold now."""
    kept: int
    replayed: int


class IdempotencyHold:
    """The hold of one request on its key: keep what it brought, then ``leave``, in any case."""

    def __init__(self, keys: Idempotency, key: bytes, print_: bytes, lease: bytes) -> None:
        self._keys = keys
        self._key = key
        self._print = print_
        self._lease: bytes | None = lease
        self._timer: asyncio.TimerHandle | None = None
        keys.held += 1
        self._renew()

    def keep(self, answer: Answer) -> None:
        """The request was answered."""
        stored = answer.stored_at or time.time()
        whole = KeptOutcome(answer=msgspec.structs.replace(answer, stored_at=stored, content=None))
        self._settle(whole)

    def refuse(self, error: RequestError, *, asked: bool) -> None:
        """The request failed with ``error``: kept when that is its outcome for good. ``asked``: a
        model was."""
        if keeps_refusal(error.status, asked).kept:
            said = Refusal(error.status, error.code, error.message, error.cure, error.param)
            self._settle(KeptOutcome(refusal=said))

    def leave(self) -> None:
        """Release the key unless an outcome was kept: the next try may run then. Safe to call
        twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._keys.held -= 1
        lease, self._lease = self._lease, None
        if lease is not None:
            self._keys.leases.release(self._key, lease)

    def _settle(self, kept: KeptOutcome) -> None:
        lease, self._lease = self._lease, None
        if lease is None:
            return
        value = _encoder.encode(kept)
        if len(value) > _LARGEST:
            value = _encoder.encode(KeptOutcome())
        keys = self._keys
        keys.kept += 1
        keys.leases.complete(self._key, lease, ENTRY + self._print + value, keys.seconds)

    def _renew(self) -> None:
        if self._timer is not None and self._lease is not None:
            self._keys.leases.extend(self._key, self._lease, LEASE_SECONDS)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(LEASE_SECONDS / 3, self._renew)


class Idempotency:
    """The keys of one worker over the shared store; ``seconds``: how long outcomes are kept."""

    def __init__(self, store: ValkeyClient, seconds: float, prefix: bytes = b"tg:i:") -> None:
        self.leases = Leases(store)
        self.seconds = seconds
        self._prefix = prefix
        self.held = self.kept = self._replayed = 0

    def statistics(self) -> IdempotencyStatistics:
        return IdempotencyStatistics(self.held, self.kept, self._replayed)

    async def look(self, request: Request, header: str) -> Answer | RequestError | IdempotencyHold:
        """The kept outcome, an answer or a refusal; or the hold on the key for the one who must
        bring it. Raises RequestError ``idempotency_*``."""
        name = read_key(header)
        if isinstance(name, Malformed):
            raise _malformed(name.reason)
        caller = request.caller
        scope = f"t{caller.tenant}" if caller.tenant is not None else f"k{caller.key_id or ''}"
        key = self._prefix + store_key(scope, request.plan.route.name, name)
        print_ = fingerprint(request.body_fields)
        lease = LEASE + print_ + request.id.encode()
        try:
            found = await self._find(key, lease, print_, request.deadline)
        except BaseException as error:
            # The lease may be ours, whether Valkey could say so or not.
            self.leases.release(key, lease)
            if isinstance(error, (ValkeyDown, hiredis.ReplyError)):
                raise _unavailable() from None
            raise
        if found is None:
            return IdempotencyHold(self, key, print_, lease)
        self._replayed += 1
        return _outcome(found)

    async def _find(self, key: bytes, lease: bytes, print_: bytes, until: float) -> bytes | None:
        """The outcome kept under ``key`` for this body; None when the key is now leased to this
        request."""
        found = await self.leases.acquire(key, lease, LEASE_SECONDS)
        while found is not None:
            if found[1 : 1 + len(print_)] != print_:
                raise _reused()
            if found.startswith(ENTRY):
                return found[1 + len(print_) :]
            if asyncio.get_running_loop().time() >= until:
                raise _in_flight()
            found = await self.leases.wait(key, lease, LEASE_SECONDS, until)
        return None


def _outcome(value: bytes) -> Answer | RequestError:
    try:
        kept = _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # of another version
        kept = KeptOutcome()
    if kept.refusal is not None:
        said = kept.refusal
        return RequestError(said.status, said.code, said.message, cure=said.cure, param=said.param)
    if kept.answer is None:
        return RequestError(
            409,
            "idempotency_answer_not_kept",
            "this request was answered, and its answer was too large to be kept",
            cure="use the answer that came, or send the request with a new idempotency-key",
        )
    return kept.answer


def _malformed(reason: str) -> RequestError:
    return RequestError(
        400,
        "idempotency_key_invalid",
        f"the header idempotency-key is no key: {reason}",
        cure="send 1 to 255 printable ASCII characters without quotes and commas, such as a UUID",
    )


def _reused() -> RequestError:
    return RequestError(
        409,
        "idempotency_key_reused",
        "this idempotency-key was sent before with another body",
        cure="use a new key for a new request, and the same body for a retry",
    )


def _in_flight() -> RequestError:
    return RequestError(
        409,
        "idempotency_in_flight",
        "the first request with this idempotency-key is still being answered",
        cure="retry with the same key after the time in retry-after",
        retry_after="1",
    )


def _unavailable() -> RequestError:
    return RequestError(
        503,
        "idempotency_unavailable",
        "the store that keeps idempotency keys does not answer, so nothing was done",
        cure="retry with the same key after the time in retry-after, or send no key",
        retry_after="1",
    )
