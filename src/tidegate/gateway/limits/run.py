"""Reserve what a request may use at worst before it goes on: ``reserve`` sends, ``granted`` reads.

Between the two the cache is asked, so both commands leave in one write.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import msgspec

from tidegate.gateway.journal import Journal
from tidegate.gateway.killed import model_killed
from tidegate.gateway.limits import rules
from tidegate.gateway.limits.rules import Worst
from tidegate.gateway.plan import CountedLimit, bits_of
from tidegate.gateway.ports import Ask
from tidegate.gateway.values import Answer, Caller, Grant, LimitReservation, Request
from tidegate.stores import (
    Calendar,
    Counters,
    ReservationGranted,
    ReservationPart,
    ValkeyDown,
    Window,
    window_at,
)

log = logging.getLogger("tidegate.gateway.limits")

_NOTHING = Worst(0, 0)


class Limits:
    """The limits of one worker."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._windows: dict[Calendar | None, Window] = {}
        self._away_since: float | None = None

    def reserve(
        self, journal: Journal, request: Request, ask: Ask, kept: Answer | None = None
    ) -> LimitReservation | None:
        """Send for what ``ask`` may use at worst, in one command; waits for nothing. An answer that
        is ``kept`` counts as a request and uses nothing else.

        The reservation goes on the journal before the store has answered: whatever becomes of the
        request, what it turns out to hold is settled. Raises RequestError for what no wait would
        help: a request larger than a whole limit, a price that nobody knows."""
        route = request.plan.limits
        if route is None:
            return None
        killed, off = 0, frozenset[str]()
        if kept is not None:
            limits, worst, barred = route.charges, _NOTHING, 0
            if not limits:
                return None
        else:
            limits, worst = route.lines, rules.worst_case(ask)
            barred = route.unpriced
            if barred == route.terms.every:
                raise rules.no_price(route.models)
            if request.killed_models:
                # A model that is killed is no choice that a limit leaves.
                off = request.killed_models.intersection(route.models)
                killed = bits_of(route, off)
                limits = tuple(limit for limit in limits if limit.covers & ~killed)
        parts: list[ReservationPart] = []
        windows: list[Window] = []
        for limit in limits:
            amount = rules.amount_of(limit, worst)
            if amount > limit.capacity:
                barred |= limit.covers
                if barred == route.terms.every:
                    raise rules.never_fits(limit, amount)
            window = self._window(limit.calendar, request.at)
            windows.append(window)
            ttl = limit.ttl
            if limit.calendar is not None:  # to the end of its window and beyond
                ttl += int((window.end - request.at) * 1000)
            parts.append(
                ReservationPart(
                    _key(limit, window, request.caller),
                    limit.covers,
                    amount,
                    limit.charge,
                    limit.capacity,
                    limit.rate,
                    ttl,
                )
            )
        if not parts:
            return None  # they are those of models that are not asked
        barred |= killed
        if barred == route.terms.every:
            raise model_killed(request.plan.route.name, off)
        terms = route.terms
        if barred:
            terms = msgspec.structs.replace(terms, barred=barred)
        reservation = self._counters.reserve(parts, terms)
        made = LimitReservation(limits, tuple(windows), reservation)
        journal.grant = Grant(made)
        return made

    async def granted(
        self,
        journal: Journal,
        request: Request,
        made: LimitReservation | None,
        kept: Answer | None = None,
    ) -> Grant | None:
        """Wait for the store's answer. Raises RequestError when there is not enough, or when the
        store is away and a limit is closed then. An answer that is ``kept`` is not refused for
        what it does not use."""
        if made is None:
            return None
        try:
            verdict = made.reservation.granted or await self._counters.outcome(made.reservation)
        except ValkeyDown as down:
            self._away(made.limits, str(down))
            journal.grant = Grant(made, uncounted=True)
            return journal.grant
        if self._away_since is not None and made.reservation.reply is not None:
            self._back()
        if not isinstance(verdict, ReservationGranted):
            limit, amount = made.limits[verdict.which], made.reservation.parts[verdict.which].amount
            if kept is not None and not limit.charge:
                journal.grant = None  # nothing was reserved
                again = self.reserve(journal, request, request.ask, kept)
                return await self.granted(journal, request, again, kept)
            window = made.windows[verdict.which]
            raise rules.refusal(limit, window, request.at, verdict.used, verdict.reserved, amount)
        headers = rules.headers(made.limits, made.windows, verdict.left, request.at)
        barred = frozenset[str]()
        if verdict.barred and request.plan.limits is not None:
            models = request.plan.limits.models
            barred = frozenset(name for bit, name in enumerate(models) if verdict.barred >> bit & 1)
        journal.grant = Grant(made, False, barred, tuple(headers))
        return journal.grant

    def _window(self, calendar: Calendar | None, at: float) -> Window:
        window = self._windows.get(calendar)
        if window is None or not window.start <= at < window.end:
            window = self._windows[calendar] = window_at(calendar, at)
        return window

    def _away(self, limits: Sequence[CountedLimit], reason: str) -> None:
        """Say once what is degraded. Raises RequestError for limits that are closed then."""
        closed = sorted({limit.name for limit in limits if limit.closed})
        if self._away_since is None:
            self._away_since = time.monotonic()
            opened = sorted({limit.name for limit in limits if not limit.closed})
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


def _key(limit: CountedLimit, window: Window, caller: Caller) -> bytes:
    scope = limit.scope
    if scope is None:
        scope = (caller.key_id if limit.per == "key" else caller.tenant) or ""
    return f"{limit.stem}{window.name}:{scope}".encode(errors="surrogatepass")
