"""Journeys with their objectives, data sets, evals, the release train and its environments."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tidegate.spec.scalars import AppPath, Duration, Items, Name, Part, Share

OnInsufficient = Literal["hold", "extend", "pass"]
Stage = Literal[
    "static", "tests", "contracts", "evals", "load", "chaos", "preview", "shadow", "canary", "full"
]


class TimeObjective(Part):
    """Times that requests keep below."""

    p50: Duration | None = None
    """Half of them."""
    p90: Duration | None = None
    """90% of them."""
    p95: Duration | None = None
    """95% of them."""
    p99: Duration | None = None
    """99% of them."""
    mean: Duration | None = None
    """On average."""


class CostObjective(Part):
    """US dollars that a journey stays below."""

    mean: float | None = Field(None, gt=0, allow_inf_nan=False)
    """On average."""
    p95: float | None = Field(None, gt=0, allow_inf_nan=False)
    """95% of them."""


class Slo(Part):
    """Service-level objectives of a journey."""

    availability: Share | None = Field(None, examples=["99.5%"])
    """Share of journeys that succeed."""
    first_token: TimeObjective | None = Field(None, examples=["{p95: 800ms}"])
    """From the request to the first content."""
    total: TimeObjective | None = Field(None, examples=["{p95: 6s}"])
    """From the start of the journey to its end."""
    cost: CostObjective | None = Field(None, examples=["{mean: 0.002}"])
    """What one journey costs."""


class Journey(Part):
    """What a user does; may span several routes and app stages."""

    routes: Items[Name] = ()
    """The routes that it asks."""
    slo: Slo = Slo()
    """What it promises."""


class Dataset(Part):
    """Examples for evals and load."""

    file: AppPath = Field(examples=["datasets/plans.jsonl"])
    """JSON Lines: one example a line."""
    cluster: str | None = Field(None, min_length=1, examples=["client_id"])
    """Field whose equal values belong together, so that they are not counted as independent."""


class Gate(Part):
    """When an eval lets a release pass."""

    test: Literal["zero_failure", "noninferiority", "superiority", "threshold"]
    """The statistical test."""
    rate: Share | None = None
    """Failure rate to stay below (`zero_failure`), or score to reach (`threshold`)."""
    margin: Share | None = None
    """How much worse than the stable release is bearable (`noninferiority`)."""
    alpha: Share = 0.05
    """Chance of a wrong pass that is bearable."""
    on_insufficient: OnInsufficient = "hold"
    """What to do when the data do not decide."""


class Eval(Part):
    """A measure of quality on a data set."""

    dataset: Name
    """The data set that it runs on."""
    evaluator: Name = Field(examples=["judge"])
    """The evaluator, by name."""
    route: Name | None = None
    """The route under test; left out: the one that the examples name."""
    gate: Gate | None = None
    """When a release passes."""


class Canary(Part):
    """How traffic moves to a new release."""

    steps: Items[Share] = Field((0.01, 0.05, 0.25, 0.5), examples=["[1%, 5%, 25%, 50%]"])
    """Shares of traffic, growing."""
    guards: Items[Literal["errors", "slo", "cost", "quality"]] = ("errors", "slo", "cost")
    """What is watched."""
    alpha: Share = 0.05
    """Chance of a false alarm that is bearable."""
    min_requests: int = Field(200, ge=1)
    """Requests that a step needs before it is judged."""
    on_insufficient: OnInsufficient = "extend"
    """What to do when the data do not decide."""


class Train(Part):
    """The way of a release from build to all traffic."""

    stages: Items[Stage] = ()
    """Stages in order."""
    canary: Canary | None = None
    """How traffic moves to it."""


class Environment(Part):
    """A place where releases run."""

    source: Name | None = Field(None, alias="from")
    """The environment that a release must have passed."""
    approvals: int = Field(0, ge=0, le=100)
    """People who must say yes."""
