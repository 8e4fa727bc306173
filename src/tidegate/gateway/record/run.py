"""Write the receipt of a request, with its content where the route keeps it, to the spool."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns

import msgspec

from tidegate.base.money import estimated_usage
from tidegate.gateway.record.rules import cost, truth
from tidegate.gateway.values import Call, Loan
from tidegate.ledger.receipts import Receipt
from tidegate.ledger.spool import SpoolWriter
from tidegate.stores.counters import Counters
from tidegate.stores.reservations import Settlement

_encoder = msgspec.json.Encoder()
_LONGEST_FINISH = 64
"""Characters of a finish reason, which is the provider's word, on a receipt."""


class Recorder:
    """Turns finished calls into spool records, as the release that served them says."""

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

    def record(self, call: Call, now: int) -> None:
        """Write the receipt; ``now`` is perf_counter_ns. Never raises for a full disk.

        A receipt cannot hold the time of its own writing, so its ``record`` stage is that of the
        receipt which this worker wrote before.
        """
        plan = call.plan
        stages = call.stages
        stages["record"] = self._last
        receipt = Receipt(
            id=call.id,
            at=call.at,
            kind=call.kind,
            status=call.status,
            outcome=call.outcome,
            release=plan.release if plan is not None else None,
            route=plan.route.name if plan is not None else None,
            journey=call.journey,
            tenant=call.tenant,
            key=call.key_id,
            model=call.model,
            stream=call.stream,
            code=call.code,
            finish=call.finish and call.finish[:_LONGEST_FINISH],
            usage=call.usage,
            replayed=call.replayed,
            cost=cost(call, plan.models if plan is not None else {}),
            cache=call.cache,
            stages=stages,
            queued=call.queued,
            capped=call.capped,
            served_by=call.served_by,
            variant=call.variant,
            variant_reason=call.variant_reason,
            first_token=call.first_token,
            total=(now - call.started) // 100 / 10_000,
            attempts=tuple(call.attempts),
            trace=call.trace,
            parent=call.parent,
            worker=self._worker,
        )
        request = response = b""
        if plan is not None and plan.route.store_content:
            request, response = call.body, call.answer_content
            if plan.redact is not None:
                request, response = (_clean(plan.redact, one) for one in (request, response))
        self._spool.append(_encoder.encode(receipt), request, response)
        if call.loan is not None:
            self._repay(call, call.loan)
        self._last = (perf_counter_ns() - now) // 100 / 10_000

    def _repay(self, call: Call, loan: Loan) -> None:
        """Settle what was borrowed with what was used; once it is known what was borrowed."""
        reply = loan.reservation.reply
        if reply is not None and not reply.done():
            reply.add_done_callback(lambda _: self._repay(call, loan))
            return
        granted = loan.reservation.granted
        if self._counters is None or (granted is None and not loan.uncounted):
            return
        settlements = []
        for place, (line, part) in enumerate(zip(loan.lines, loan.parts, strict=True)):
            used = truth(call, line, part.amount, call.plan.models)
            lent = 0
            if granted is not None:
                if line.charge or (granted.left[place] < 0 and not used):
                    continue
                lent = part.amount if granted.left[place] >= 0 else 0
            if lent or used:
                settlements.append(Settlement(part.key, lent, used, line.rate, part.ttl))
        if settlements:
            self._counters.settle(settlements, granted)


def _clean(redact: Callable[[str], str], content: bytes) -> bytes:
    """Redacted content; nothing at all when the hook fails: better lost than leaked."""
    if not content:
        return b""
    try:
        return redact(content.decode(errors="replace")).encode()
    except Exception:  # noqa: BLE001 - the edge to a plug-in; the loss is visible in the ledger
        return msgspec.json.encode({"redaction": "failed"})


def settle(call: Call, prompt: bytes, text: str) -> None:
    """Estimate the tokens of an answer whose provider sent no numbers, marked as estimated: the
    receipt is written before the answer ends, so this may cost nothing."""
    if call.usage is None and (text or call.status == 200):
        call.usage = estimated_usage(prompt, text)
