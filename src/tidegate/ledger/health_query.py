"""How a release, a route or a journey does: what a canary asks every few seconds."""

from __future__ import annotations

import math
import time

import msgspec

from tidegate.base import UsageError
from tidegate.ledger.classes import ERROR_CLASSES, ErrorClass
from tidegate.ledger.partitions import Connection
from tidegate.ledger.questions import LONGEST_WINDOW, Quantiles, quantiles
from tidegate.ledger.receipts import Purpose
from tidegate.ledger.rollups import CLASS, FIRST_TOKEN, TOTAL, Rollup


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of whole minutes from ``begin`` to ``end`` (seconds since the epoch). Times are
    milliseconds, costs US dollars."""

    begin: float
    end: float
    requests: int
    served: int
    errors: dict[ErrorClass, int]
    """Every class, 0 where there is none."""
    first_token: Quantiles
    total: Quantiles
    cost: float
    """Of the requests whose cost is known."""
    cost_unknown: int
    """Requests that may have cost an unknown amount."""
    prompt_tokens: int
    completion_tokens: int
    estimated: int
    """Answers whose tokens no provider reported."""

    @property
    def judged(self) -> int:
        """Requests that say something about a release: served, or failed by us or a provider."""
        return self.served + self.errors["ours"] + self.errors["provider"]

    @property
    def error_rate(self) -> float | None:
        """Share of those that failed; None where there is none to judge by."""
        failed = self.errors["ours"] + self.errors["provider"]
        return failed / self.judged if self.judged else None


def health(
    connection: Connection,
    window: float,
    *,
    release: str | None = None,
    route: str | None = None,
    journey: str | None = None,
    variant: str | None = None,
    purpose: Purpose = "user",
    now: float | None = None,
) -> Health:
    """Health over the last ``window`` seconds, from roll-ups: the cost does not grow with traffic.

    ``release`` is a whole digest. With ``journey``, the gateway's requests made for it (and then
    ``variant`` cannot be asked). UsageError: window_invalid, filter_invalid.
    """
    if not 0 < window <= LONGEST_WINDOW:
        raise UsageError(
            "window_invalid",
            f"a window of {window:g} s is not between 0 and {LONGEST_WINDOW / 86400:.0f} days",
            cure="ask for a window within that",
        )
    if journey is not None and variant is not None:
        raise UsageError(
            "filter_invalid",
            "roll-ups do not tell variants within a journey apart",
            cure="ask for the journey or for the variant",
        )
    end = time.time() if now is None else now
    begin = math.floor((end - window) / 60) * 60
    # Rows of scope ``route`` that are older than the scope ``journey_route`` have a journey too.
    rows = connection.execute(
        "SELECT body FROM rollups WHERE minute >= to_timestamp(%(begin)s) "
        "AND minute <= to_timestamp(%(end)s) AND purpose = %(purpose)s "
        "AND scope = ANY(%(scopes)s) "
        "AND (%(journey)s::text IS NULL OR journey = %(journey)s) "
        "AND (%(release)s::text IS NULL OR release = %(release)s) "
        "AND (%(route)s::text IS NULL OR route = %(route)s) "
        "AND (%(variant)s::text IS NULL OR variant = %(variant)s)",
        {
            "begin": begin,
            "end": end,
            "purpose": purpose,
            "scopes": ["route"] if journey is None else ["route", "journey_route"],
            "journey": journey,
            "release": release,
            "route": route,
            "variant": variant,
        },
    ).fetchall()
    merged = Rollup.merged_from([body for (body,) in rows])
    tally = merged.tallies
    return Health(
        begin=begin,
        end=end,
        requests=merged.count,
        served=int(tally.get("outcome.served", 0)),
        errors={name: int(tally.get(CLASS + name, 0)) for name in ERROR_CLASSES},
        first_token=quantiles(merged.sketches.get(FIRST_TOKEN)),
        total=quantiles(merged.sketches.get(TOTAL)),
        cost=tally.get("cost", 0.0),
        cost_unknown=int(tally.get("cost.unknown", 0)),
        prompt_tokens=int(tally.get("tokens.prompt", 0)),
        completion_tokens=int(tally.get("tokens.completion", 0)),
        estimated=int(tally.get("usage.estimated", 0)),
    )
