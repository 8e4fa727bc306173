"""Write the receipt of a request, with its content where the route keeps it, to the spool; settle
what it had reserved."""

from __future__ import annotations

from time import perf_counter_ns

import msgspec

from tidegate.gateway.journal import Journal
from tidegate.gateway.plan import Plan, Redact
from tidegate.gateway.record.rules import cost, used_of
from tidegate.gateway.values import Ending, Grant
from tidegate.ledger import Receipt, SpoolWriter
from tidegate.stores import Counters, Settlement

_encoder = msgspec.json.Encoder()
_LONGEST_FINISH = 64
"""Characters of a finish reason, which is the provider's word, on a receipt."""


class Recorder:
    """Writes the journals of finished requests to the spool, as their release says."""

    def __init__(
        self,
        spool: SpoolWriter,
        worker: int,
        counters: Counters | None = None,
    ) -> None:
        self._spool = spool
        self._worker = worker
        self._counters = counters
        self._last = 0.0

    def record(self, journal: Journal, ending: Ending, now: int) -> None:
        """Write the receipt; ``now`` is perf_counter_ns. Never raises for a full disk.

        A receipt cannot hold the time of its own writing, so its ``record`` stage is that of the
        receipt which this worker wrote before.
        """
        steering, context, caller = journal.steering, journal.context, journal.caller
        plan = steering.plan if steering is not None else None
        stages, attempts = journal.stages, journal.attempts
        stages["record"] = self._last
        receipt = Receipt(
            id=journal.id,
            at=journal.at,
            kind=journal.kind,
            purpose=journal.purpose,
            status=ending.status,
            outcome=ending.outcome,
            release=plan.release if plan is not None else None,
            route=plan.route.name if plan is not None else None,
            journey=context.journey,
            tenant=caller.tenant,
            key=caller.key_id,
            model=journal.model,
            stream=journal.stream,
            code=ending.code,
            finish=ending.finish and ending.finish[:_LONGEST_FINISH],
            usage=journal.usage,
            replayed=ending.replayed,
            cost=cost(journal.bill(), plan.models) if attempts and plan is not None else 0.0,
            cache=journal.cache,
            stages=stages,
            reasons=journal.reasons,
            queued=journal.queued,
            capped=journal.capped,
            served_by=journal.served_by,
            variant=steering.variant if steering is not None else None,
            variant_reason=steering.reason if steering is not None else None,
            first_token=journal.first_token,
            total=(now - journal.started) // 100 / 10_000,
            attempts=journal.in_order() if attempts else (),
            trace=context.trace,
            parent=context.parent,
            worker=self._worker,
        )
        request = response = b""
        if plan is not None and plan.route.store_content:
            request, response = journal.body, journal.content
            if plan.redact is not None:
                request, response = (_clean(plan.redact, one) for one in (request, response))
        self._spool.append(_encoder.encode(receipt), request, response)
        if journal.grant is not None and plan is not None:
            self._settle(journal, journal.grant, plan)
        self._last = (perf_counter_ns() - now) // 100 / 10_000

    def _settle(self, journal: Journal, grant: Grant, plan: Plan) -> None:
        """Replace what was reserved by what was used; once it is known what was reserved."""
        made = grant.made
        reply = made.reservation.reply
        if reply is not None and not reply.done():
            # The request ended before the store's answer came: settle when it does.
            reply.add_done_callback(lambda _: self._settle(journal, grant, plan))
            return
        granted = made.reservation.granted
        if self._counters is None or (granted is None and not grant.uncounted):
            return
        settlements, bill = [], journal.bill()
        parts = made.reservation.parts
        for place, (limit, part) in enumerate(zip(made.limits, parts, strict=True)):
            used = used_of(bill, limit, part.amount, plan.models)
            reserved = 0
            if granted is not None:
                if limit.charge or (granted.left[place] < 0 and not used):
                    continue
                reserved = part.amount if granted.left[place] >= 0 else 0
            if reserved or used:
                settlements.append(Settlement(part.key, reserved, used, limit.rate, part.ttl))
        if settlements:
            self._counters.settle(settlements, granted)


def _clean(redact: Redact, content: bytes) -> bytes:
    """Redacted content; nothing at all when the hook fails: better lost than leaked."""
    if not content:
        return b""
    try:
        return redact(content.decode(errors="replace")).encode()
    except Exception:  # noqa: BLE001 - the edge to a plug-in; the loss is visible in the ledger
        return msgspec.json.encode({"redaction": "failed"})
