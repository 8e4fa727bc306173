"""Journeys with their objectives, data sets, evals, the release train and its environments."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tidegate import release
from tidegate.spec.part import SpecPart
from tidegate.spec.scalars import AppPath, Duration, Items, Name, Share


class TimeObjectiveSpec(SpecPart, resolves=release.TimeObjective):
    """Times that requests keep below."""

    p50: Duration | None
    """Half of them."""
    p90: Duration | None
    """90% of them."""
    p95: Duration | None
    """95% of them."""
    p99: Duration | None
    """99% of them."""
    mean: Duration | None
    """On average."""


class CostObjectiveSpec(SpecPart, resolves=release.CostObjective):
    """US dollars that a journey stays below."""

    mean: float | None = Field(gt=0, allow_inf_nan=False)
    """On average."""
    p95: float | None = Field(gt=0, allow_inf_nan=False)
    """95% of them."""


class SloSpec(SpecPart, resolves=release.Slo):
    """Service-level objectives of a journey."""

    availability: Share | None = Field(examples=["99.5%"])
    """Share of journeys that succeed."""
    first_token: TimeObjectiveSpec | None = Field(examples=["{p95: 800ms}"])
    """From the request to the first content."""
    total: TimeObjectiveSpec | None = Field(examples=["{p95: 6s}"])
    """From the start of the journey to its end."""
    cost: CostObjectiveSpec | None = Field(examples=["{mean: 0.002}"])
    """What one journey costs."""


class JourneySpec(SpecPart, resolves=release.DeclaredJourney):
    """What a user does; may span several routes and app stages."""

    routes: Items[Name]
    """The routes that it asks."""
    slo: SloSpec
    """Its service-level objectives."""


class DatasetSpec(SpecPart, resolves=release.Dataset):
    """Examples for evals and load."""

    file: AppPath = Field(examples=["datasets/plans.jsonl"])
    """JSON Lines: one example a line."""
    cluster: str | None = Field(min_length=1, examples=["client_id"])
    """Field whose equal values belong together, so that they are not counted as independent."""


class GateSpec(SpecPart, resolves=release.Gate):
    """When an eval lets a release pass."""

    test: Literal["zero_failure", "noninferiority", "superiority", "threshold"]
    """The statistical test."""
    rate: Share | None
    """Failure rate to stay below (`zero_failure`), or score to reach (`threshold`)."""
    margin: Share | None
    """Largest loss against the stable release that still passes (`noninferiority`)."""
    alpha: Share
    """Accepted chance of a wrong pass."""
    on_insufficient: release.OnInsufficient
    """What to do when the data do not decide."""


class EvalSpec(SpecPart, resolves=release.Eval):
    """A measure of quality on a data set."""

    dataset: Name
    """The data set that it runs on."""
    evaluator: Name = Field(examples=["judge"])
    """The evaluator, by name."""
    route: Name | None
    """The route under test; left out: the one that the examples name."""
    gate: GateSpec | None
    """When a release passes."""


class CanarySpec(SpecPart, resolves=release.Canary):
    """How traffic moves to a new release."""

    steps: Items[Share] = Field(examples=["[1%, 5%, 25%, 50%]"])
    """Shares of traffic, growing."""
    guards: Items[Literal["errors", "slo", "cost", "quality"]]
    """Signals that stop the rollout when they get worse."""
    alpha: Share
    """Accepted chance of a false alarm."""
    min_requests: int = Field(ge=1)
    """Requests that a step needs before it is judged."""
    on_insufficient: release.OnInsufficient
    """What to do when the data do not decide."""


class TrainSpec(SpecPart, resolves=release.Train):
    """The release train: the stages from build to all traffic."""

    stages: Items[release.Stage]
    """Stages in order."""
    canary: CanarySpec | None
    """How traffic moves to it."""


class EnvironmentSpec(SpecPart, resolves=release.Environment):
    """A place where releases run."""

    source: Name | None = Field(alias="from")
    """The environment that a release must have passed."""
    approvals: int = Field(ge=0, le=100)
    """How many people must approve a release."""
