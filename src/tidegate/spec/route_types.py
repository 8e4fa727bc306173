"""Prompts, tools and routes: what an app asks for by name."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue

from tidegate import release
from tidegate.spec.part import SpecPart, default
from tidegate.spec.scalars import (
    AppPath,
    Duration,
    InputName,
    Items,
    Name,
    Share,
    Size,
    Switch,
)


class InputSpec(SpecPart, resolves=release.Input):
    """One declared input of a prompt."""

    type: release.InputType = "string"
    """JSON type of the value."""
    choices: Items[str]
    """Allowed values of a string; left out: any."""
    required: bool
    """Whether a request must carry it."""
    default: JsonValue
    """Value used when a request does not carry it; makes the input optional."""


def _name(value: object, expected: str) -> object:
    if isinstance(value, (str, SpecPart)):
        return value
    raise ValueError(f"{value!r} names no model; {expected}")


def _mapping(value: object, expected: str) -> object:
    if isinstance(value, (dict, SpecPart)):
        return value
    raise ValueError(f"{value!r} is no declaration; {expected}")


def _input(value: object) -> object:
    """The two short forms in the long one: a type's name, a list of allowed strings."""
    if isinstance(value, str):
        return {"type": value}
    if isinstance(value, list):
        return {"type": "string", "choices": value}
    return _mapping(value, "a type, a list of allowed strings, or a mapping")


_InputForms = release.InputType | list[str] | InputSpec


class PromptSpec(SpecPart, resolves=release.Prompt):
    """A template with declared inputs."""

    file: AppPath = Field(examples=["prompts/plan.md"])
    """The Jinja2 template, one file."""
    role: Literal["system", "developer", "user"]
    """Role of the message that it renders to."""
    inputs: dict[
        InputName,
        Annotated[
            InputSpec,
            BeforeValidator(
                _input, json_schema_input_type=release.InputType | list[str] | InputSpec
            ),
        ],
    ] = Field(examples=["{goal: string, level: [beginner, regular, athlete]}"])
    """The template's variables: a type (`string`, `integer`, `number`, `boolean`, `list`,
    `object`), a list of allowed strings, or a mapping. A variable that is used and not declared is
    a mistake, and so is one that is declared and not used."""


class ToolSpec(SpecPart, resolves=release.Tool):
    """A tool that a model may ask for; the app runs it."""

    schema_file: AppPath = Field(alias="schema", examples=["tools/search_workouts.json"])
    """JSON file: the JSON Schema of the arguments, an object; its `description` tells the model
    what the tool does."""
    description: str | None = None
    """What the tool does, as told to the model; left out: the `description` of the schema."""
    cost: float | None = Field(ge=0, allow_inf_nan=False)
    """US dollars a call."""


class ModelChoice(SpecPart, resolves=release.SmallModel):
    """A small and a large model, and how to choose between them."""

    small: Name
    """Model for what is easy."""
    large: Name
    """Model for what is hard."""
    choose: Name = Field(examples=["intent"])
    """How to choose."""


class StaleStep(SpecPart):
    """A kept answer whose time in the cache is over."""

    stale: Duration
    """How old the kept answer may be."""


class TemplateStep(SpecPart):
    """A fixed answer."""

    template: AppPath
    """The file with the answer."""


def _fallback(value: object) -> object:
    if isinstance(value, dict) and "stale" in value and "template" not in value:
        return StaleStep.model_validate(value)
    if isinstance(value, dict):
        return TemplateStep.model_validate(value)
    return _name(value, "a model's name, {stale: 24h} or {template: file}")


Fallback = Annotated[
    Name | StaleStep | TemplateStep,
    BeforeValidator(_fallback, json_schema_input_type=Name | StaleStep | TemplateStep),
]


class SemanticCacheSpec(SpecPart, resolves=release.SemanticCache):
    """Answers to requests that mean the same."""

    ttl: Duration
    """How long an answer is kept."""
    max_error: Share
    """Accepted share of wrong hits, measured on a sample of hits."""


class CacheSpec(SpecPart):
    """When a kept answer is given instead of asking a model."""

    exact: Duration | None = Field(None, examples=["1h"])
    """How long the answer to an identical request of the same tenant is kept; left out: not kept.
    A request with a `temperature` above 0, or with `cache-control: no-cache`, always asks the
    model; answers that ask for a tool are not kept."""
    semantic: SemanticCacheSpec | None = None
    """Answers to requests that mean the same; needs care, see the fields."""


class TimeoutsSpec(SpecPart, resolves=release.Timeouts):
    """How long to wait. `total` is the deadline of the whole request, every attempt included. An
    answer that is not streamed comes from a provider in one piece: there only `connect` and `total`
    hold, and while there are fallbacks to ask a model gets half of the time that is left. A stream
    falls back after `first_token`."""

    connect: Duration
    """For a connection to the model."""
    first_token: Duration
    """From sending the request to the first content."""
    idle: Duration
    """Between two pieces of a stream."""
    min_rate: float | None = Field(gt=0, allow_inf_nan=False, examples=[20])
    """Characters a second that a stream must give, over 5 seconds of waiting for it, once the
    model has begun (thoughts count). Catches a model that drips one token a second, which `idle`
    does not see. A client that reads slowly does not count against its model. Left out: any rate
    will do."""
    total: Duration
    """For everything."""


class RetriesSpec(SpecPart, resolves=release.Retries):
    """Ask the same model again when it fails in a way that may pass: a connection that breaks
    before any content, a rate limit, an error of its server. Never after the first content has
    reached the client. The wait is random, up to `backoff` doubled each time, and never shorter
    than what the provider asks for (`retry-after` in any of its forms); a model that asks for more
    than 5 seconds is passed over while there are fallbacks."""

    most: int = Field(ge=0, le=10)
    """Most retries of one request at one model; 0: none."""
    backoff: Duration
    """Longest wait before the first retry; the second has twice as much."""
    budget: Share = Field(examples=["20%"])
    """Retries as a share of the route's requests, so that an outage is not met with a multiple of
    the traffic; each worker counts its own and may save up ten. 0%: none."""


class SurgeSpec(SpecPart, resolves=release.Surge):
    """Tighter caps under load."""

    output_tokens: int = Field(ge=1)
    """Most completion tokens of one request while load is high."""
    above: Share
    """Load above which the cap holds: requests in flight and waiting, as a share of the route's
    `queue.concurrent`; without a queue, a worker's connections as a share of
    `gateway.max_connections`. It ends when load is below three quarters of this."""


class CapsSpec(SpecPart, resolves=release.Caps):
    """Bounds on one request."""

    prompt_tokens: int | None = Field(ge=1)
    """Most prompt tokens; a longer request is refused."""
    output_tokens: int | None = Field(ge=1)
    """Most completion tokens; asked of the model as its limit."""
    surge: SurgeSpec | None
    """Tighter caps under load."""
    answer_bytes: Size = Field(ge=1024, examples=["64MiB"])
    """Most bytes of one answer as they come from the model, streamed or not; more is an error
    (`upstream_too_large`)."""


class HedgeSpec(SpecPart, resolves=release.Hedge):
    """Ask a second model when the first one is slow to begin; the first content wins, the other is
    left at once. Asking twice costs money and nothing else: the gateway runs no tools."""

    after: Duration = Field(examples=["800ms"])
    """How long the model may take until its first content (of a whole answer: until the answer)
    before the next of `fallback` is asked beside it; where there is none, the same model on
    another connection."""
    spend: Share = Field(examples=["5%"])
    """Share of the route's requests that may be asked twice; counted by each worker."""


class QueueSpec(SpecPart, resolves=release.QueueSettings):
    """How many requests of this route may ask a model at once, and how many may wait. The figures
    hold for the whole gateway on one machine, over all of its workers. Answers from the cache need
    no place."""

    concurrent: int = Field(ge=1, examples=[8])
    """Most requests that ask a model at once."""
    waiting: int = Field(ge=0)
    """Most requests that wait for a place. One more is answered with `queue_full`, or takes the
    place of one with a lower priority."""
    wait: Duration
    """Longest wait. A request that would have to wait longer is answered with `overloaded` at
    once."""


class StoreSpec(SpecPart):
    """What is kept of this route's requests beside the receipt."""

    content: Switch = default(release.Route, "store_content")
    """Whether prompts and answers are kept (see `ledger.retention`)."""


def _models(value: object) -> object:
    if isinstance(value, dict):
        return ModelChoice.model_validate(value)
    return _name(value, "a model's name, or a mapping with small and large")


class VariantSpec(SpecPart):
    """What differs from the route for requests that the flag puts into this variant."""

    models: (
        Annotated[
            Name | ModelChoice, BeforeValidator(_models, json_schema_input_type=Name | ModelChoice)
        ]
        | None
    ) = Field(None, examples=["large"])
    """The model that answers; the fallbacks are those of the route."""
    prompt: Name | None = None
    """The prompt that comes first."""

    def answering(self) -> str | None:
        """Name of the model that answers; None: that of the route."""
        return self.models.large if isinstance(self.models, ModelChoice) else self.models


class RouteSpec(SpecPart, resolves=release.Route):
    """What an app asks for by name, as it would ask for a model: `model="recommend"`."""

    models: Annotated[
        Name | ModelChoice, BeforeValidator(_models, json_schema_input_type=Name | ModelChoice)
    ] = Field(examples=["small", "{small: small, large: large, choose: intent}"])
    """The model that answers, or a small and a large one. A route whose model makes embeddings is
    an embeddings route."""
    prompt: Name | None
    """The prompt that comes first; its inputs come with the request. Left out: the request's
    messages go as they are."""
    tools: Items[Name]
    """Tools that the model may ask for."""
    fallback: Items[Fallback] = Field((), examples=["[small, {stale: 24h}]"])
    """What answers when the model cannot, in order: models, a kept answer, fixed text."""
    cache: CacheSpec = CacheSpec()
    """When a kept answer is given instead of asking a model."""
    timeouts: TimeoutsSpec
    """How long to wait."""
    caps: CapsSpec
    """Bounds on one request."""
    hold: Literal["first_content", "answer"]
    """Until when a stream is held back. `first_content`: until its first content, then each event
    goes on as it comes, and an answer that breaks off ends with an error. `answer`: until it is
    complete (8 MiB at most), so that an answer which breaks off, stalls or does not meet `output`
    is never seen: the next model of `fallback` is asked anew, and the client gets one whole answer
    or an error with its status. While an answer is held, the client hears nothing."""
    retries: RetriesSpec
    """When the same model is asked again."""
    hedge: HedgeSpec | None = Field(examples=["{after: 800ms, spend: 5%}"])
    """Ask a second model when the first one is slow to begin; left out: wait for the first."""
    queue: QueueSpec | None
    """How many requests may ask a model at once, and how many may wait; left out: no bound."""
    output: AppPath | None = Field(examples=["schemas/plan.json"])
    """JSON file: the JSON Schema that an answer must meet. The model is asked for it; for an answer
    that does not meet it the next model of `fallback` is asked, and when that was the last it is an
    error (`output_invalid`); in a stream that was not held an error is its last event."""
    guard: Items[Name]
    """Checks on every answer, beside `output`."""
    flag: Name | None = Field(examples=["recommend-model"])
    """The flag that chooses the variant of a request, out of `flags` or what `tidegate flag set`
    put in force."""
    variants: dict[Name, VariantSpec] = Field(examples=["{terse: {prompt: terse}}"])
    """Name of a variant of the flag to what it changes. A variant that is not here changes
    nothing."""
    store: StoreSpec = StoreSpec()
    """What is kept of this route's requests beside the receipt."""

    def answering(self) -> str:
        """Name of the model that answers: of a small and a large one, the large."""
        return self.models.large if isinstance(self.models, ModelChoice) else self.models

    def fallback_models(self) -> tuple[str, ...]:
        """Names of the models in the fallback chain, in order."""
        return tuple(step for step in self.fallback if isinstance(step, str))
