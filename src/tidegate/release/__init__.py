"""The pin: everything a request may depend on, resolved to hashes, named by one digest.

Holds:    the resolved values, how a spec becomes a release, what changed between two.
Not here: what a person writes (spec), where artifacts lie (registry), what flips live (switches).
Reads:    spec.   Writes: nothing; the registry keeps what is built.
Words:    release, digest, pin, resolved
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.base import lazy
from tidegate.release.encoding import decode_release
from tidegate.release.files import AppFiles
from tidegate.release.manifest import (
    ARTIFACT_TYPE,
    EMPTY_BODY,
    MANIFEST_TYPE,
    TITLE,
    Descriptor,
    Manifest,
    describe,
    pack,
)
from tidegate.release.values import (
    Artifact,
    Breaker,
    Caps,
    Hedge,
    Input,
    LedgerSettings,
    Limit,
    Model,
    OutputSchema,
    PoolSettings,
    Prompt,
    QueueSettings,
    Release,
    Retries,
    Route,
    reachable_models,
)

if TYPE_CHECKING:
    from tidegate.release.build import build_release, resolve_models
    from tidegate.release.diff import changes
else:
    __getattr__ = lazy(
        __name__,
        {
            "build": ("build_release", "resolve_models"),
            "diff": ("changes",),
        },
    )

__all__ = [
    "ARTIFACT_TYPE",
    "EMPTY_BODY",
    "MANIFEST_TYPE",
    "TITLE",
    "AppFiles",
    "Artifact",
    "Breaker",
    "Caps",
    "Descriptor",
    "Hedge",
    "Input",
    "LedgerSettings",
    "Limit",
    "Manifest",
    "Model",
    "OutputSchema",
    "PoolSettings",
    "Prompt",
    "QueueSettings",
    "Release",
    "Retries",
    "Route",
    "build_release",
    "changes",
    "decode_release",
    "describe",
    "pack",
    "reachable_models",
    "resolve_models",
]
