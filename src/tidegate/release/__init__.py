"""The release: everything that a request may depend on, frozen and named by one digest.

Holds:    the resolved values, their encoding and digest, what changed between two releases, which
          fields change an answer.
Not here: what a person writes and how it is resolved (spec), where artifacts lie (registry), what
          flips live (switches).
Reads:    files of an app folder, when it is built.   Writes: nothing; the registry keeps releases.
Words:    release, digest, pin, resolved, format, fingerprint
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.base import lazy
from tidegate.release.encoding import decode_release, encode_release
from tidegate.release.files import AppFiles, FileReader, Pins
from tidegate.release.fingerprint import fingerprint
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
    FORMAT,
    Artifact,
    Breaker,
    Canary,
    Caps,
    CostObjective,
    Dataset,
    DeclaredJourney,
    Environment,
    Eval,
    FixedAnswer,
    Gate,
    GatewaySettings,
    Hedge,
    Input,
    InputType,
    LedgerSettings,
    Limit,
    Model,
    OnInsufficient,
    OutputSchema,
    Pinned,
    PinnedFlags,
    PoolSettings,
    Prompt,
    QueueSettings,
    Release,
    Retries,
    Route,
    SemanticCache,
    Slo,
    SmallModel,
    Stage,
    Surge,
    TimeObjective,
    Timeouts,
    Tool,
    Train,
    Variant,
    reachable_models,
)

if TYPE_CHECKING:
    from tidegate.release.diff import changes
else:
    __getattr__ = lazy(__name__, {"diff": ("changes",)})

__all__ = [
    "ARTIFACT_TYPE",
    "EMPTY_BODY",
    "FORMAT",
    "MANIFEST_TYPE",
    "TITLE",
    "AppFiles",
    "Artifact",
    "Breaker",
    "Canary",
    "Caps",
    "CostObjective",
    "Dataset",
    "DeclaredJourney",
    "Descriptor",
    "Environment",
    "Eval",
    "FileReader",
    "FixedAnswer",
    "Gate",
    "GatewaySettings",
    "Hedge",
    "Input",
    "InputType",
    "LedgerSettings",
    "Limit",
    "Manifest",
    "Model",
    "OnInsufficient",
    "OutputSchema",
    "Pinned",
    "PinnedFlags",
    "Pins",
    "PoolSettings",
    "Prompt",
    "QueueSettings",
    "Release",
    "Retries",
    "Route",
    "SemanticCache",
    "Slo",
    "SmallModel",
    "Stage",
    "Surge",
    "TimeObjective",
    "Timeouts",
    "Tool",
    "Train",
    "Variant",
    "changes",
    "decode_release",
    "describe",
    "encode_release",
    "fingerprint",
    "pack",
    "reachable_models",
]
