"""The gateway's stages, declared once: receipts, roll-ups, profile and docs take them from here."""

from __future__ import annotations

import msgspec


class RequestStage(msgspec.Struct, frozen=True):
    """One stage of a request's path. Its name is also that of its package and its span."""

    name: str
    does: str
    """One line for a person."""


STAGE_TABLE = (
    RequestStage("admit", "key, body, route, release and variant, what operators switched off"),
    RequestStage("idempotency", "waiting for, or finding, the first request with the same key"),
    RequestStage("render", "the pinned prompt, tools, output schema and caps of the route"),
    RequestStage("cache", "the exact look-up, and waiting for an identical request under way"),
    RequestStage("limits", "reserving what the request may use at worst"),
    RequestStage("queue", "waiting for a place among those that ask a model"),
    RequestStage("route", "the chain of models that may answer"),
    RequestStage("call", "asking models: retries, hedges and fallbacks included"),
    RequestStage("guard", "holding the answer against the route's checks"),
    RequestStage("record", "writing the receipt"),
)
"""In the order in which a request walks them."""

STAGES = tuple(stage.name for stage in STAGE_TABLE)
