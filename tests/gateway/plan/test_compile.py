"""A route's fingerprint changes with what may change an answer, and with nothing else."""

from __future__ import annotations

import msgspec
import pytest

from tests.gateway.calls import plans_of
from tests.gateway.releases import PLAN, pinned, sample_release
from tidegate.base.errors import ReleaseError
from tidegate.gateway.plan import compile_plans, load_redactor
from tidegate.gateway.targets import make_target
from tidegate.release.values import Caps, Hedge, OutputSchema, Release, Tool, Variant

RELEASE = sample_release("http://127.0.0.1:9/v1")
replace = msgspec.structs.replace


def fingerprint(release: Release) -> bytes:
    return plans_of(release)["plan"].fingerprint


def with_route(**changes: object) -> Release:
    route = replace(RELEASE.routes["plan"], **changes)
    return replace(RELEASE, routes={**RELEASE.routes, "plan": route})


def with_prompt(**changes: object) -> Release:
    return replace(RELEASE, prompts={"plan": replace(RELEASE.prompts["plan"], **changes)})


def with_model(**changes: object) -> Release:
    small = replace(RELEASE.models["small"], **changes)
    return replace(RELEASE, models={**RELEASE.models, "small": small})


def with_tool(description: str) -> Release:
    tool = Tool(name="t", file=pinned("t.json", "{}"), description=description, parameters={})
    return replace(with_route(tools=("t",)), tools={"t": tool})


SCHEMA = OutputSchema(file=pinned("s.json", "{}"), json_schema={"type": "object"})
OTHER = OutputSchema(file=pinned("s.json", "{}"), json_schema={"type": "array"})


@pytest.mark.parametrize(
    "changed",
    [
        with_prompt(text=PLAN + "!"),
        with_prompt(role="system"),
        with_model(upstream="mock-9"),
        with_model(base_url="http://127.0.0.1:10/v1"),
        with_route(models=("spare",)),
        with_route(models=("small", "spare")),
        with_route(caps=Caps(output_tokens=5)),
        with_route(output=SCHEMA),
        with_route(output=OTHER),
        with_tool("one"),
        with_tool("two"),
    ],
)
def test_what_may_change_an_answer_changes_the_fingerprint(changed: Release) -> None:
    assert fingerprint(changed) != fingerprint(RELEASE)


def test_schemas_and_tools_count_with_their_content() -> None:
    assert fingerprint(with_route(output=SCHEMA)) != fingerprint(with_route(output=OTHER))
    assert fingerprint(with_tool("one")) != fingerprint(with_tool("two"))


@pytest.mark.parametrize(
    "changed",
    [
        RELEASE,
        with_route(cache_ttl=5.0),
        with_route(cache_ttl=None),
        with_route(store_content=False),
        replace(RELEASE, app="renamed"),
        replace(RELEASE, journeys={}),
    ],
)
def test_what_may_not_does_not(changed: Release) -> None:
    assert fingerprint(changed) == fingerprint(RELEASE)


def test_models_have_plans_where_the_spec_allows_it() -> None:
    assert {"small", "plan", "embed"} <= set(plans_of())
    closed = replace(RELEASE, gateway=replace(RELEASE.gateway, direct_models=False))
    assert set(plans_of(closed)) == set(RELEASE.routes)


@pytest.mark.parametrize(
    "reference", ["no.such:thing", "os:nothing", "os", "os:sep", ":x", "", "os:path.join"]
)
def test_a_redactor_that_is_not_there_is_named(reference: str) -> None:
    with pytest.raises(ReleaseError) as caught:
        load_redactor(reference, "/nowhere")
    assert caught.value.code == "redactor_missing"


def test_a_redactor_is_found() -> None:
    assert load_redactor(None, "/nowhere") is None
    redact = load_redactor("textwrap:dedent", "/nowhere")
    assert redact is not None
    assert redact("  a") == "a"


def test_where_a_variable_of_the_base_url_leads_is_part_of_it() -> None:
    release = with_model(base_url="${UPSTREAM}")
    seen = set()
    for port in (10, 11):
        targets = {
            model.name: make_target(model, f"http://127.0.0.1:{port}/v1", None)
            for model in release.models.values()
        }
        seen.add(compile_plans(release, "sha256:0", targets)["plan"].fingerprint)
    assert len(seen) == 2


def test_variants_spend_what_their_route_may_spend_on_trying_twice() -> None:
    variants = {name: Variant(models=("spare",)) for name in ("a", "b")}
    release = with_route(flag="f", variants=variants, hedge=Hedge(after=1.0, spend=0.1))
    plan = plans_of(release)["plan"]
    assert plan.terms.hedge is not None
    for variant in plan.variants.values():
        assert variant.terms.retry_budget is plan.terms.retry_budget
        assert variant.terms.hedge is plan.terms.hedge
