"""The authored types, top to bottom: what a person may write, key by key, with its product copy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from tidegate import release
from tidegate.spec.limit_types import LimitSpec, MatchSpec
from tidegate.spec.model_types import (
    SOURCES,
    ArtifactSpec,
    BreakerSpec,
    ModelSpec,
    PoolSpec,
    PriceSpec,
)
from tidegate.spec.part import SpecPart, default
from tidegate.spec.proof_types import (
    DatasetSpec,
    EnvironmentSpec,
    EvalSpec,
    JourneySpec,
    SloSpec,
    TrainSpec,
)
from tidegate.spec.route_types import (
    CacheSpec,
    CapsSpec,
    HedgeSpec,
    InputSpec,
    ModelChoice,
    PromptSpec,
    QueueSpec,
    RetriesSpec,
    RouteSpec,
    StaleStep,
    StoreSpec,
    TemplateStep,
    TimeoutsSpec,
    ToolSpec,
    VariantSpec,
)
from tidegate.spec.scalars import AppPath, Duration, Items, Name, Size, text

__all__ = [
    "SOURCES",
    "ArtifactSpec",
    "BreakerSpec",
    "CacheSpec",
    "CapsSpec",
    "DatasetSpec",
    "EnvironmentSpec",
    "EvalSpec",
    "GatewaySpec",
    "HedgeSpec",
    "InputSpec",
    "JourneySpec",
    "LedgerSpec",
    "LimitSpec",
    "MatchSpec",
    "ModelChoice",
    "ModelSpec",
    "PoolSpec",
    "PriceSpec",
    "PromptSpec",
    "QueueSpec",
    "RetentionSpec",
    "RetriesSpec",
    "RouteSpec",
    "SloSpec",
    "Spec",
    "StaleStep",
    "StoreSpec",
    "TemplateStep",
    "TimeoutsSpec",
    "ToolSpec",
    "TrainSpec",
    "VariantSpec",
]


class GatewaySpec(SpecPart, resolves=release.GatewaySettings):
    """Settings of the gateway."""

    keys: Literal["required", "off"]
    """Whether a request needs a key (see `tidegate keys`)."""
    direct_models: bool
    """Whether a request may name a model as well as a route."""
    max_body: Size = Field(default(release.GatewaySettings, "max_body_bytes"), examples=["4MiB"])
    """Largest request body."""
    max_connections: int = Field(ge=1)
    """Most client connections of one worker; a further one is answered with 503 and closed."""
    idempotency: Duration
    """How long the answer to a request with an `Idempotency-Key` is kept to be replayed."""


class RetentionSpec(SpecPart):
    """How long records are kept."""

    receipts: Duration = default(release.LedgerSettings, "keep_receipts")
    """Receipts."""
    content: Duration = default(release.LedgerSettings, "keep_content")
    """Prompts and answers."""


class LedgerSpec(SpecPart, resolves=release.LedgerSettings):
    """What is kept of every request, and for how long."""

    retention: RetentionSpec = RetentionSpec()
    """How long it is kept."""
    redact: (
        Annotated[
            str,
            *text(
                r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*",
                "a function's place",
                "write package.module:function",
            ),
        ]
        | None
    ) = Field(examples=["coach.privacy:redact"])
    """A function, text to text, that content passes through before it is written. Its module is
    installed beside Tidegate, or lies in the app's folder."""


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Spec(SpecPart, resolves=release.Release):
    """One app. All paths are relative to the folder of `tidegate.yaml`."""

    app: Name = Field(examples=["fitness-coach"])
    """The app's name."""
    experimental: bool
    """Whether keys that would protect users are accepted although they are not built yet. Otherwise
    each is a mistake, since it protects nobody. `check`, `build` and `up` list them each time."""
    include: Annotated[
        Items[AppPath],
        BeforeValidator(_one_or_many, json_schema_input_type=str | list[str]),
    ] = Field((), examples=["[specs/models.yaml]"])
    """Other spec files to read in: a path or a list. A name may be defined in one file only."""
    models: dict[Name, ModelSpec]
    """Models that routes can name."""
    prompts: dict[Name, PromptSpec]
    """Templates with declared inputs."""
    tools: dict[Name, ToolSpec]
    """Tools that models may ask for."""
    routes: dict[Name, RouteSpec]
    """What the app asks for by name."""
    limits: dict[Name, LimitSpec]
    """Rates and budgets: how many requests, tokens or dollars, for whom, in which time."""
    flags: AppPath | None = Field(examples=["flags.json"])
    """JSON file: a flagd document whose flags choose variants of routes. It is in force until
    `tidegate flag set` puts another in force, which needs no release."""
    journeys: dict[Name, JourneySpec]
    """What users do, with the objectives for it."""
    datasets: dict[Name, DatasetSpec]
    """Examples for evals and load."""
    evals: dict[Name, EvalSpec]
    """Measures of quality, and when a release passes them."""
    train: TrainSpec = Field(alias="release")
    """The release train: the stages from build to all traffic."""
    environments: dict[Name, EnvironmentSpec]
    """Places where releases run."""
    gateway: GatewaySpec
    """Settings of the gateway."""
    ledger: LedgerSpec
    """What is kept of every request, and for how long."""
