"""``tidegate.yaml`` as a type: what a person may write, key by key, with its product copy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from tidegate.spec.limit_types import Limit, Match
from tidegate.spec.model_types import Artifact, Breaker, Model, Pool, Price
from tidegate.spec.proof_types import Dataset, Environment, Eval, Journey, Slo, Train
from tidegate.spec.route_types import (
    Cache,
    Caps,
    Hedge,
    Input,
    ModelChoice,
    Prompt,
    Queue,
    Retries,
    Route,
    Stale,
    Store,
    Template,
    Timeouts,
    Tool,
    Variant,
)
from tidegate.spec.scalars import AppPath, Duration, Items, Name, Part, Size, text

__all__ = [
    "Artifact",
    "Breaker",
    "Cache",
    "Caps",
    "Dataset",
    "Environment",
    "Eval",
    "Gateway",
    "Hedge",
    "Input",
    "Journey",
    "Ledger",
    "Limit",
    "Match",
    "Model",
    "ModelChoice",
    "Pool",
    "Price",
    "Prompt",
    "Queue",
    "Retention",
    "Retries",
    "Route",
    "Slo",
    "Spec",
    "Stale",
    "Store",
    "Template",
    "Timeouts",
    "Tool",
    "Train",
    "Variant",
]


class Gateway(Part):
    """How the door behaves."""

    keys: Literal["required", "off"] = "required"
    """Whether a request needs a key (see `tidegate keys`)."""
    direct_models: bool = False
    """Whether a request may name a model as well as a route."""
    max_body: Size = Field(4 * 1024 * 1024, examples=["4MiB"])
    """Largest request body."""
    max_connections: int = Field(8192, ge=1)
    """Most client connections of one worker; one more is answered with 503 and closed."""
    idempotency: Duration = 86400.0
    """How long the answer to a request with an `Idempotency-Key` is kept to be replayed."""


class Retention(Part):
    """How long the truth is kept."""

    receipts: Duration = 90 * 86400.0
    """Receipts."""
    content: Duration = 30 * 86400.0
    """Prompts and answers."""


class Ledger(Part):
    """What is kept of every request, and for how long."""

    retention: Retention = Retention()
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
    ) = Field(None, examples=["coach.privacy:redact"])
    """A function, text to text, that content passes through before it is written. Its module is
    installed beside Tidegate, or lies in the app's folder."""


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Spec(Part):
    """One app. All paths are relative to the folder of `tidegate.yaml`."""

    app: Name = Field(examples=["fitness-coach"])
    """The app's name."""
    include: Annotated[
        Items[AppPath],
        BeforeValidator(_one_or_many, json_schema_input_type=str | list[str]),
    ] = Field((), examples=["[specs/models.yaml]"])
    """Other spec files to read in: a path or a list. A name may be defined in one file only."""
    models: dict[Name, Model] = {}
    """Models that routes can name."""
    prompts: dict[Name, Prompt] = {}
    """Templates with declared inputs."""
    tools: dict[Name, Tool] = {}
    """Tools that models may ask for."""
    routes: dict[Name, Route] = {}
    """What the app asks for by name."""
    limits: dict[Name, Limit] = {}
    """Most that may be used in a time: requests, tokens, dollars."""
    flags: AppPath | None = Field(None, examples=["flags.json"])
    """JSON file: a flagd document whose flags choose variants of routes. It is in force until
    `tidegate flag set` puts another in force, which needs no release."""
    journeys: dict[Name, Journey] = {}
    """What users do, and what is promised for it."""
    datasets: dict[Name, Dataset] = {}
    """Examples for evals and load."""
    evals: dict[Name, Eval] = {}
    """Measures of quality, and when a release passes them."""
    release: Train = Train()
    """The way of a release from build to all traffic."""
    environments: dict[Name, Environment] = {}
    """Places where releases run."""
    gateway: Gateway = Gateway()
    """How the door behaves."""
    ledger: Ledger = Ledger()
    """What is kept of every request, and for how long."""
