"""Spec to release: the same spec and the same file bytes give the same release, anywhere.

Nothing here reads a clock, the environment, or a file other than through ``Files``. Layout,
comments and key order of ``tidegate.yaml`` do not show in the result; what it says does.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from pydantic import BaseModel

from tidegate import spec as authored
from tidegate.base import flag_rules
from tidegate.base.errors import ReleaseError
from tidegate.base.money import Price
from tidegate.release.encoding import decode_release, encode_release
from tidegate.release.files import Files, Pins
from tidegate.release.values import (
    Artifact,
    Breaker,
    Caps,
    FixedAnswer,
    Flags,
    GatewaySettings,
    Hedge,
    Input,
    Journey,
    LedgerSettings,
    Limit,
    Model,
    OutputSchema,
    Pinned,
    PoolSettings,
    Prompt,
    QueueSettings,
    Release,
    Retries,
    Route,
    Surge,
    Timeouts,
    Tool,
    Variant,
)
from tidegate.spec import types

LOCAL = "local"
_SOURCES: tuple[Literal["wheel", "https", "file", "hf"], ...] = ("wheel", "https", "file", "hf")


def build_release(spec: authored.Spec, files: Files) -> Release:
    """Resolve ``spec`` to a release. Raises ReleaseError for a file that cannot be pinned."""
    pins = Pins(files)
    models = resolve_models(spec)
    release = Release(
        app=spec.app,
        models=models,
        prompts={name: _prompt(name, p, pins) for name, p in sorted(spec.prompts.items())},
        tools={name: _tool(name, t, pins) for name, t in sorted(spec.tools.items())},
        routes={name: _route(name, r, models, pins) for name, r in sorted(spec.routes.items())},
        limits={name: _limit(name, one) for name, one in sorted(spec.limits.items())},
        flags=_flags(spec.flags, pins),
        journeys={name: _journey(name, j) for name, j in sorted(spec.journeys.items())},
        datasets={name: _dataset(d, pins) for name, d in sorted(spec.datasets.items())},
        evals={name: _eval(e, spec) for name, e in sorted(spec.evals.items())},
        environments={name: _plain(e) for name, e in sorted(spec.environments.items())},
        train=_plain(spec.release),
        gateway=GatewaySettings(
            keys=spec.gateway.keys,
            direct_models=spec.gateway.direct_models,
            max_body_bytes=spec.gateway.max_body,
            max_connections=spec.gateway.max_connections,
            idempotency=spec.gateway.idempotency,
        ),
        ledger=LedgerSettings(
            keep_receipts=spec.ledger.retention.receipts,
            keep_content=spec.ledger.retention.content,
            redact=spec.ledger.redact,
        ),
    )
    release = msgspec.structs.replace(release, files=pins.pinned)
    # Through its encoding, so that the value is equal to the one that will be loaded.
    return decode_release(encode_release(release))


def resolve_models(spec: authored.Spec) -> dict[str, Model]:
    """The models of ``spec``, resolved; needs no files."""
    return {name: _model(name, model) for name, model in sorted(spec.models.items())}


def _model(name: str, model: types.Model) -> Model:
    local = model.provider == LOCAL
    pool = model.pool or types.Pool()
    settings = PoolSettings(context=pool.context, slots=pool.slots, threads=pool.threads)
    return Model(
        name=name,
        kind=model.kind,
        provider=model.provider,
        upstream=model.name or name,
        base_url=model.base_url,
        keys=model.keys,
        price=Price(
            input=model.price.input,
            output=model.price.output,
            cached_input=model.price.cached_input,
        ),
        artifacts={role: _artifact(a) for role, a in sorted(model.files().items())},
        pool=settings if local else None,
        context=model.context or (pool.context if local else None),
        can=model.can,
        breaker=_breaker(model.breaker),
    )


def _breaker(breaker: types.Breaker | None) -> Breaker | None:
    if breaker is None:
        return None
    return Breaker(
        failures=breaker.failures,
        minimum=breaker.minimum,
        window=breaker.window,
        open=breaker.open,
    )


def _artifact(artifact: types.Artifact) -> Artifact:
    source = next(name for name in _SOURCES if getattr(artifact, name) is not None)
    return Artifact(
        source=source,
        ref=getattr(artifact, source),
        sha256=artifact.sha256,
        member=artifact.member,
        source_sha256=artifact.source_sha256,
        licence=artifact.licence,
    )


def _prompt(name: str, prompt: types.Prompt, pins: Pins) -> Prompt:
    file, text = pins.text(prompt.file)
    inputs = {key: _input(value) for key, value in sorted(prompt.inputs.items())}
    return Prompt(name=name, file=file, text=text, role=prompt.role, inputs=inputs)


def _input(value: types.Input) -> Input:
    return Input(
        type=value.type,
        choices=value.choices,
        required=value.required and "default" not in value.model_fields_set,
        default=value.default,
    )


def _tool(name: str, tool: types.Tool, pins: Pins) -> Tool:
    file, schema = _json_schema(tool.schema_file, pins)
    description = tool.description or str(schema.get("description") or "")
    return Tool(name=name, file=file, description=description, parameters=schema, cost=tool.cost)


def _route(name: str, route: types.Route, models: dict[str, Model], pins: Pins) -> Route:
    chain = tuple(dict.fromkeys((route.answering(), *route.fallback_models())))
    stale, template = None, None
    for step in route.fallback:
        if isinstance(step, types.Stale):
            stale = step.stale
        elif isinstance(step, types.Template):
            file, text = pins.text(step.template)
            template = FixedAnswer(file, text.strip())
    output = None
    if route.output is not None:
        file, schema = _json_schema(route.output, pins)
        output = OutputSchema(file=file, json_schema=schema)
    return Route(
        name=name,
        kind=models[chain[0]].kind,
        models=chain,
        prompt=route.prompt,
        tools=route.tools,
        cache_ttl=route.cache.exact,
        timeouts=Timeouts(
            connect=route.timeouts.connect,
            first_token=route.timeouts.first_token,
            idle=route.timeouts.idle,
            total=route.timeouts.total,
            min_rate=route.timeouts.min_rate,
        ),
        caps=_caps(route.caps),
        hold=route.hold,
        retries=Retries(
            most=route.retries.most, backoff=route.retries.backoff, budget=route.retries.budget
        ),
        hedge=_hedge(route.hedge),
        stale=stale,
        template=template,
        queue=_queue(route.queue),
        output=output,
        flag=route.flag,
        variants={key: _variant(v, route) for key, v in sorted(route.variants.items())},
        store_content=route.store.content,
    )


def _variant(variant: types.Variant, route: types.Route) -> Variant:
    answering = variant.answering() or route.answering()
    return Variant(
        models=tuple(dict.fromkeys((answering, *route.fallback_models()))),
        prompt=variant.prompt or route.prompt,
    )


def _flags(path: str | None, pins: Pins) -> Flags | None:
    if path is None:
        return None
    file, text = pins.text(path)
    document, problems = flag_rules.read(text)
    if document is None or problems:
        raise ReleaseError(
            "flags_invalid",
            f"{file.path} is no flagd document that can be in force: {'; '.join(problems[:5])}",
            cure="mend the file; tidegate check names each problem",
        )
    return Flags(file=file, document=text, hash=flag_rules.HASH_FORM)


def _limit(name: str, limit: types.Limit) -> Limit:
    unit = limit.unit or "requests"  # check has seen that it is one
    calendar = limit.every if isinstance(limit.every, str) else None
    return Limit(
        name=name,
        per=limit.per,
        unit=unit,
        amount=float(getattr(limit, unit)),
        calendar=calendar,
        every=None if isinstance(limit.every, str) else limit.every,
        burst=limit.burst,
        routes=limit.match.route,
        models=limit.match.model,
        on_outage=limit.on_outage or ("closed" if unit == "dollars" else "open"),
    )


def _hedge(hedge: types.Hedge | None) -> Hedge | None:
    return None if hedge is None else Hedge(after=hedge.after, spend=hedge.spend)


def _caps(caps: types.Caps) -> Caps:
    surge = caps.surge and Surge(output_tokens=caps.surge.output_tokens, above=caps.surge.above)
    return Caps(
        prompt_tokens=caps.prompt_tokens,
        output_tokens=caps.output_tokens,
        answer_bytes=caps.answer_bytes,
        surge=surge or None,
    )


def _queue(queue: types.Queue | None) -> QueueSettings | None:
    if queue is None:
        return None
    return QueueSettings(concurrent=queue.concurrent, waiting=queue.waiting, wait=queue.wait)


def _journey(name: str, journey: types.Journey) -> Journey:
    slo = journey.slo.model_dump(exclude_none=True)
    return Journey(name=name, routes=journey.routes, slo=slo)


def _dataset(dataset: types.Dataset, pins: Pins) -> Pinned:
    return pins.pin(dataset.file)


def _eval(value: types.Eval, spec: authored.Spec) -> dict[str, Any]:
    """The eval with its defaults, and with the cluster field of its data set."""
    dataset = spec.datasets.get(value.dataset)
    return {**_plain(value), "cluster": dataset.cluster if dataset else None}


def _plain(value: BaseModel) -> dict[str, Any]:
    """A part without resolved counterpart, as data: defaults filled in, times in seconds."""
    plain: dict[str, Any] = msgspec.to_builtins(value.model_dump(by_alias=True))
    return plain


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
