"""The fingerprint of a route: a hash of everything released that can change an answer.

The keys of kept answers contain it, so what counts here decides when a release starts with an
empty cache. A field that counts without need throws good answers away; a field that is forgotten
serves an answer that the release would no longer give. So every field of what a route consists of
stands in one of two tables, with its reason, and a test walks over the types: a field in neither
table fails it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tidegate.base import Price
from tidegate.release.values import (
    Artifact,
    Breaker,
    Caps,
    FixedAnswer,
    Hedge,
    Input,
    Model,
    OutputSchema,
    Pinned,
    PoolSettings,
    Prompt,
    QueueSettings,
    Release,
    Retries,
    Route,
    SemanticCache,
    SmallModel,
    Surge,
    Timeouts,
    Tool,
    Variant,
)

Table = Mapping[type[msgspec.Struct], Mapping[str, str]]
"""Type to the names of its fields, each with the reason why it stands there."""

COUNTS: Table = {
    Route: {
        "name": "the name of the output schema, which the model reads, is made of it",
        "kind": "a completion is no vector",
        "models": "they answer, in this order; each counts with what it is",
        "small": "it may answer in place of the first",
        "prompt": "it comes first; it counts with what it says, not by its name",
        "tools": "the model may ask for them; each counts with what it says",
        "caps": "see Caps",
        "output": "see OutputSchema",
        "guard": "a kept answer passed these checks and no others",
    },
    SmallModel: {
        "small": "it may answer in place of the first",
        "choose": "it decides which of the two answers",
    },
    Caps: {
        "output_tokens": "a longer answer may be cut",
        "answer_bytes": "a kept answer must not be larger than is allowed now",
    },
    OutputSchema: {
        "json_schema": "the model reads it, in the order of its author, and answers are held to it",
    },
    Prompt: {
        "text": "the model reads it",
        "role": "the model weighs it by its role",
        "inputs": "see Input",
    },
    Input: {
        "default": "it is in the text where a request leaves the input out",
    },
    Tool: {
        "name": "the model reads it",
        "description": "the model reads it",
        "parameters": "the model reads them, in the order of their author",
    },
    Model: {
        "name": "an answer says which model gave it: a killed model's are not served",
        "kind": "a completion is no vector",
        "provider": "it decides how a request is translated for the model",
        "upstream": "it is the model",
        "artifacts": "they are the model, where it is local",
        "pool": "see PoolSettings",
        "context": "a request that does not fit goes to the next model",
        "can": "a request that needs more goes to the next model",
    },
    Artifact: {
        "sha256": "it is the content of the file",
    },
    PoolSettings: {
        "context": "a local model forgets or cuts what does not fit",
    },
}
"""Fields that change an answer, or which model gives it."""

_SAME_CONTENT = "what was read from the file counts, not how the file is laid out or named"
_WHEN = "it decides when and whether an answer comes, not what is in it; only whole ones are kept"

INERT: Table = {
    Route: {
        "cache_ttl": "how long an answer is kept does not change it",
        "semantic": "it decides which requests share an answer, not what is in it",
        "timeouts": _WHEN,
        "hold": "a whole answer is the same bytes, held back or not",
        "retries": _WHEN,
        "hedge": "the second model is one of models, which count",
        "stale": "what stands in for an answer is never kept as one",
        "template": "what stands in for an answer is never kept as one",
        "queue": _WHEN,
        "flag": "a variant is a route of its own, with its own fingerprint",
        "variants": "a variant is a route of its own, with its own fingerprint",
        "store_content": "what the ledger keeps is not what the client gets",
    },
    SemanticCache: dict.fromkeys(("ttl", "max_error"), "see Route.semantic"),
    Timeouts: dict.fromkeys(("connect", "first_token", "idle", "total", "min_rate"), _WHEN),
    Caps: {
        "prompt_tokens": "a prompt that is too long is refused before the cache is asked",
        "surge": "a whole answer is the same under it, and one that it cut is not kept",
    },
    Surge: dict.fromkeys(("output_tokens", "above"), "see Caps.surge"),
    Retries: dict.fromkeys(("most", "backoff", "budget"), _WHEN),
    Hedge: dict.fromkeys(("after", "spend"), _WHEN),
    FixedAnswer: dict.fromkeys(("file", "text"), "it is never kept as an answer"),
    QueueSettings: dict.fromkeys(("concurrent", "waiting", "wait"), _WHEN),
    Variant: dict.fromkeys(("models", "small", "prompt"), "see Route.variants"),
    OutputSchema: {"file": _SAME_CONTENT},
    Prompt: {
        "name": "the model does not see it",
        "file": _SAME_CONTENT,
    },
    Input: dict.fromkeys(
        ("type", "choices", "required"),
        "an input that does not fit is refused before the cache is asked",
    ),
    Tool: {
        "file": _SAME_CONTENT,
        "cost": "what a call of the tool costs does not change what the model says",
    },
    Model: {
        "base_url": "where it leads in this environment counts: served_at",
        "keys": "it is the name of a secret; whichever key is behind it, the model is the same",
        "price": "what an answer cost does not change it",
        "breaker": _WHEN,
    },
    Price: dict.fromkeys(("input", "output", "cached_input"), "see Model.price"),
    Breaker: dict.fromkeys(("failures", "minimum", "window", "open"), _WHEN),
    Artifact: {
        **dict.fromkeys(
            ("source", "ref", "member", "source_sha256"),
            "the same file from another place is the same file",
        ),
        "licence": "a word about the file",
    },
    PoolSettings: {
        "slots": "how many requests are decoded at once",
        "threads": "how fast they are decoded",
    },
    Pinned: dict.fromkeys(("path", "sha256", "size"), _SAME_CONTENT),
}
"""Fields that do not change an answer."""


def fingerprint(release: Release, route: Route, served_at: Sequence[str | None]) -> bytes:
    """sha256 (32 bytes) over the fields in ``COUNTS`` of ``route`` and of what it names.

    ``served_at``: where the base URL of each of the route's models leads in this environment; None
    for a model that runs in a pool of ours, whose address says nothing about its answers.
    """
    identity = {
        "route": _counted(route),
        "prompt": _counted(release.prompts[route.prompt]) if route.prompt else None,
        "tools": [_counted(release.tools[name]) for name in route.tools],
        "models": [
            (_counted(release.models[name]), where)
            for name, where in zip(route.models, served_at, strict=True)
        ],
    }
    # No sorting: models write an object in the order of its schema, so that order counts.
    return hashlib.sha256(msgspec.json.encode(identity)).digest()


_NAMES = {(Route, "models"), (Route, "prompt"), (Route, "tools")}
"""Fields that count with what they name."""


def _counted(value: Any) -> Any:
    """``value`` with only those fields that count, and with names in one order."""
    if isinstance(value, msgspec.Struct):
        kind = type(value)
        return {
            field: _counted(getattr(value, field))
            for field in COUNTS.get(kind, ())
            if (kind, field) not in _NAMES
        }
    if isinstance(value, dict) and any(isinstance(item, msgspec.Struct) for item in value.values()):
        return {name: _counted(value[name]) for name in sorted(value)}
    return value
