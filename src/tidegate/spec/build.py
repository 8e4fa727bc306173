"""Spec to release: the same spec and the same file bytes give the same release, anywhere.

Nothing here reads a clock, the environment, or a file other than through ``FileReader``. Layout,
comments and key order of ``tidegate.yaml`` do not show in the result; what it says does. Here
stands only what does not go by name (see ``resolve``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import msgspec

from tidegate.base import ReleaseError, flag_rules
from tidegate.release import (
    FORMAT,
    FileReader,
    FixedAnswer,
    Model,
    OutputSchema,
    Pinned,
    PinnedFlags,
    Pins,
    Release,
    SmallModel,
    Variant,
    decode_release,
    encode_release,
)
from tidegate.spec import types
from tidegate.spec.resolve import Surroundings, differences, resolve, resolved

LOCAL = "local"


def build_release(spec: types.Spec, files: FileReader) -> Release:
    """Resolve ``spec`` to a release. Raises ReleaseError for a file that cannot be pinned."""
    pins = Pins(files)
    release = cast(Release, resolve(spec, Surroundings("", spec, pins)))
    release = msgspec.structs.replace(release, files=pins.pinned)
    # Through its encoding, so that the value is equal to the one that will be loaded.
    return decode_release(encode_release(release))


def resolve_models(spec: types.Spec) -> dict[str, Model]:
    """The models of ``spec``, resolved; needs no files."""
    around = Surroundings("", spec, Pins(_NoFiles()))
    return cast(dict[str, Model], resolved(spec.models, around))


class _NoFiles:
    """Of a model only the pins of its files are in a release, and those stand in the spec."""

    def open(self, path: str) -> Iterator[bytes]:
        raise AssertionError(f"a model took {path} into the release")


@differences.register
def _app(spec: types.Spec, around: Surroundings) -> dict[str, object]:
    flags = None if spec.flags is None else _flags(spec.flags, around.pins)
    return {"flags": flags, "schema_version": FORMAT, "files": {}}


@differences.register
def _gateway(gateway: types.GatewaySpec, _: Surroundings) -> dict[str, object]:
    return {"max_body_bytes": gateway.max_body}


@differences.register
def _ledger(ledger: types.LedgerSpec, _: Surroundings) -> dict[str, object]:
    kept = ledger.retention
    return {"keep_receipts": kept.receipts, "keep_content": kept.content}


@differences.register
def _model(model: types.ModelSpec, around: Surroundings) -> dict[str, object]:
    written = model.pool or types.PoolSpec.model_validate({})
    pool = written if model.provider == LOCAL else None
    return {
        "name": around.name,
        "upstream": model.name or around.name,
        "artifacts": resolved(model.files(), around),
        "pool": resolved(pool, around),
        "context": model.context or (pool.context if pool is not None else None),
    }


@differences.register
def _artifact(artifact: types.ArtifactSpec, _: Surroundings) -> dict[str, object]:
    source = next(name for name in types.SOURCES if getattr(artifact, name) is not None)
    return {"source": source, "ref": getattr(artifact, source)}


@differences.register
def _prompt(prompt: types.PromptSpec, around: Surroundings) -> dict[str, object]:
    file, text = around.pins.text(prompt.file)
    return {"name": around.name, "file": file, "text": text}


@differences.register
def _input(declared: types.InputSpec, _: Surroundings) -> dict[str, object]:
    return {"required": declared.required and "default" not in declared.model_fields_set}


@differences.register
def _tool(tool: types.ToolSpec, around: Surroundings) -> dict[str, object]:
    file, schema = _json_schema(tool.schema_file, around.pins)
    return {
        "name": around.name,
        "file": file,
        "description": tool.description or str(schema.get("description") or ""),
        "parameters": schema,
    }


@differences.register
def _route(route: types.RouteSpec, around: Surroundings) -> dict[str, object]:
    stale, template = None, None
    for step in route.fallback:
        if isinstance(step, types.StaleStep):
            stale = step.stale
        elif isinstance(step, types.TemplateStep):
            file, text = around.pins.text(step.template)
            template = FixedAnswer(file=file, text=text.strip())
    output = None
    if route.output is not None:
        file, schema = _json_schema(route.output, around.pins)
        output = OutputSchema(file=file, json_schema=schema)
    return {
        "name": around.name,
        "kind": around.spec.models[route.answering()].kind,
        "models": _chain(route.answering(), route),
        "small": _small(route.models, around),
        "cache_ttl": route.cache.exact,
        "semantic": resolved(route.cache.semantic, around),
        "stale": stale,
        "template": template,
        "output": output,
        "variants": {name: _variant(v, route, around) for name, v in route.variants.items()},
        "store_content": route.store.content,
    }


def _variant(variant: types.VariantSpec, route: types.RouteSpec, around: Surroundings) -> Variant:
    """The route as this variant has it, complete: what the variant leaves out is the route's."""
    models = route.models if variant.models is None else variant.models
    return Variant(
        models=_chain(variant.answering() or route.answering(), route),
        small=_small(models, around),
        prompt=variant.prompt or route.prompt,
    )


def _chain(answering: str, route: types.RouteSpec) -> tuple[str, ...]:
    """The model that answers, then the route's fallbacks, each once."""
    return tuple(dict.fromkeys((answering, *route.fallback_models())))


def _small(models: str | types.ModelChoice, around: Surroundings) -> SmallModel | None:
    choice = models if isinstance(models, types.ModelChoice) else None
    return cast(SmallModel | None, resolved(choice, around))


@differences.register
def _limit(limit: types.LimitSpec, around: Surroundings) -> dict[str, object]:
    unit = limit.unit or "requests"  # check has seen that it is one
    calendar = limit.every if isinstance(limit.every, str) else None
    return {
        "name": around.name,
        "unit": unit,
        "amount": float(getattr(limit, unit)),
        "calendar": calendar,
        "every": None if isinstance(limit.every, str) else limit.every,
        "routes": limit.match.route,
        "models": limit.match.model,
        "on_outage": limit.on_outage or ("closed" if unit == "dollars" else "open"),
    }


@differences.register
def _journey(_: types.JourneySpec, around: Surroundings) -> dict[str, object]:
    return {"name": around.name}


@differences.register
def _dataset(dataset: types.DatasetSpec, around: Surroundings) -> dict[str, object]:
    return msgspec.structs.asdict(around.pins.pin(dataset.file))


def _flags(path: str, pins: Pins) -> PinnedFlags:
    file, text = pins.text(path)
    document, problems = flag_rules.read(text)
    if document is None or problems:
        raise ReleaseError(
            "flags_invalid",
            f"{file.path} is no flagd document that can be in force: {'; '.join(problems[:5])}",
            cure="mend the file; tidegate check names each problem",
        )
    return PinnedFlags(file=file, document=text, hash=flag_rules.HASH_FORM)


def _json_schema(path: str, pins: Pins) -> tuple[Pinned, dict[str, Any]]:
    file, data = pins.read(path)
    try:
        return file, msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ReleaseError(
            "file_not_schema",
            f"{file.path} is not a JSON object with a JSON Schema: {error}",
            cure="mend the file; tidegate check names the line",
        ) from None
