"""Reserve before a request goes on: ``reserve`` sends, ``granted`` reads.

Between the two the cache is asked, so both commands leave in one write.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import msgspec

from tidegate.gateway.admit.limits import rules
from tidegate.gateway.admit.limits.rules import RouteLimits, Worst
from tidegate.gateway.admit.switched import model_killed
from tidegate.gateway.values import Answer, Call, Line, Loan
from tidegate.stores.counters import Counters
from tidegate.stores.reservations import ReservationGranted, ReservationPart
from tidegate.stores.valkey_client import ValkeyDown
from tidegate.stores.windows import Calendar, Window, window_at

log = logging.getLogger("tidegate.gateway.limits")

_NOTHING = Worst(0, 0)


class Limits:
    """The limits of one worker."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._windows: dict[Calendar | None, Window] = {}
        self._away_since: float | None = None

    def reserve(self, call: Call, kept: Answer | None = None) -> None:
        """Send for what ``call`` may use at worst, in one command; waits for nothing. An answer
        that is ``kept`` counts as a request and uses nothing else.

        Raises RequestError for what no wait would help: a request larger than a whole limit, a
        price that nobody knows."""
        limits: RouteLimits | None = call.plan.limits
        if limits is None:
            return
        killed, off = 0, frozenset[str]()
        if kept is not None:
            lines, worst, barred = limits.charges, _NOTHING, 0
            if not lines:
                return
        else:
            lines, worst = limits.lines, rules.worst_case(call.upstream, call.head)
            barred = limits.unpriced
            if barred == limits.terms.every:
                raise rules.no_price(limits.models)
            if call.switched is not None and call.switched.models:
                # A model that is killed is no choice that a limit leaves.
                off = call.switched.models.intersection(limits.models)
                killed = rules.bits_of(limits, off)
                lines = tuple(line for line in lines if line.covers & ~killed)
        parts: list[ReservationPart] = []
        windows: list[Window] = []
        for line in lines:
            amount = rules.amount_of(line, worst)
            if amount > line.capacity:
                barred |= line.covers
                if barred == limits.terms.every:
                    raise rules.never_fits(line, amount)
            window = self._window(line.calendar, call.at)
            windows.append(window)
            ttl = line.ttl
            if line.calendar is not None:  # to the end of its window and beyond
                ttl += int((window.end - call.at) * 1000)
            parts.append(
                ReservationPart(
                    _key(line, window, call),
                    line.covers,
                    amount,
                    line.charge,
                    line.capacity,
                    line.rate,
                    ttl,
                )
            )
        if not parts:
            return  # they are those of models that are not asked
        barred |= killed
        if barred == limits.terms.every:
            raise model_killed(call.plan.route.name, off)
        terms = limits.terms
        if barred:
            terms = msgspec.structs.replace(terms, barred=barred)
        reservation = self._counters.reserve(parts, terms)
        call.loan = Loan(lines, windows, parts, reservation)

    async def granted(self, call: Call, kept: Answer | None = None) -> None:
        """Wait for the verdict. Raises RequestError when there is not enough, or when the store is
        away and a limit is closed then. An answer that is ``kept`` is not refused for what it does
        not use."""
        loan = call.loan
        if loan is None:
            return
        try:
            verdict = loan.reservation.granted or await self._counters.outcome(loan.reservation)
        except ValkeyDown as down:
            self._away(loan.lines, str(down))
            loan.uncounted = True
            return
        if self._away_since is not None and loan.reservation.reply is not None:
            self._back()
        if not isinstance(verdict, ReservationGranted):
            line, part = loan.lines[verdict.which], loan.parts[verdict.which]
            if kept is not None and not line.charge:
                call.loan = None  # nothing was lent
                self.reserve(call, kept)
                await self.granted(call, kept)
                return
            raise rules.refusal(
                line,
                loan.windows[verdict.which],
                call.at,
                verdict.used,
                verdict.reserved,
                part.amount,
            )
        loan.headers = rules.headers(loan.lines, loan.windows, verdict.left, call.at)
        if verdict.barred:
            models = call.plan.limits.models
            loan.barred = frozenset(
                name for bit, name in enumerate(models) if verdict.barred >> bit & 1
            )

    def _window(self, calendar: Calendar | None, at: float) -> Window:
        window = self._windows.get(calendar)
        if window is None or not window.start <= at < window.end:
            window = self._windows[calendar] = window_at(calendar, at)
        return window

    def _away(self, lines: Sequence[Line], reason: str) -> None:
        """Say once what is degraded. Raises RequestError for limits that are closed then."""
        closed = sorted({line.name for line in lines if line.closed})
        if self._away_since is None:
            self._away_since = time.monotonic()
            opened = sorted({line.name for line in lines if not line.closed})
            log.warning(
                "limits cannot be counted (%s): refused by %s; passed uncounted by %s",
                reason,
                ", ".join(closed) or "none",
                ", ".join(opened) or "none",
            )
        if closed:
            raise rules.unavailable(closed)

    def _back(self) -> None:
        assert self._away_since is not None
        log.warning("limits are counted again after %.1f s", time.monotonic() - self._away_since)
        self._away_since = None


def _key(line: Line, window: Window, call: Call) -> bytes:
    scope = line.scope
    if scope is None:
        scope = (call.key_id if line.per == "key" else call.tenant) or ""
    return f"{line.stem}{window.name}:{scope}".encode(errors="surrogatepass")
